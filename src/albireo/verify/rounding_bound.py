"""How far a rounding may end up when what is rounded is off by an error: to 16 bits, to codes of a row or of a head.

Called by bounds.py. Does not know kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.reference.call import Array
from albireo.backends.reference.rounding import round_code, round_to, scaled_codes
from albireo.dtypes import FP8_GROUP, FP8_TOKEN, KV_CODES, TOKEN
from albireo.quantization.rounding import round_float_tokens, round_tokens

F64 = NDArray[np.float64]

_U = 2.0**-24
#: Below the smallest normal number of float32 and bfloat16, which hardware may flush to zero.
FLUSHED = 2.0**-126
#: The largest code of a row of 8-bit codes.
_LARGEST_TOKEN_CODE = 127


def as_rows(error: Any, like: Array) -> F64:
    """An error for each element."""
    return np.broadcast_to(np.asarray(error, np.float64), like.shape)


def rounded(x: Array, error: Any, dtype: str) -> F64:
    """Of a type that is computed in, or a row of codes: nothing, unless a tie lies in between."""
    wide = as_rows(error, x)
    if dtype == "float32":
        return wide
    if dtype == TOKEN:
        codes, scale = round_tokens(x)
        return _moved(x, wide, (codes, scale), _LARGEST_TOKEN_CODE, np.rint)
    if dtype == FP8_TOKEN:
        return _moved_groups(x, wide)
    centre = round_to(x, dtype).astype(np.float64)
    ends = [np.nextafter((x + sign * wide).astype(np.float32), np.float32(sign * np.inf)) for sign in (1, -1)]
    off = np.max([np.abs(round_to(end, dtype) - centre) for end in ends], axis=0)
    off = np.where(np.isnan(off), np.where(np.isfinite(x), np.inf, 0.0), off)
    flushed = FLUSHED if dtype == "bfloat16" else 0.0
    return np.where(wide > 0, off + flushed, 0.0)


def rounded_to_codes(x: Array, error: Any, dtype: str) -> F64:
    """Of a KV cache of codes, a scale for each head; where nothing of a head is off, nothing moves."""
    wide = as_rows(error, x)
    off = _moved(x, wide, scaled_codes(x, dtype), KV_CODES[dtype], lambda each: round_code(each, dtype))
    return np.where(wide.max(axis=-1, keepdims=True) > 0, off, 0.0)


def _moved_groups(x: Array, wide: F64) -> F64:
    """Of rows of e4m3: each group as a row of its own, the last one with zeros behind it."""
    behind = ((0, 0), (0, -x.shape[1] % FP8_GROUP))
    groups, errors = (np.pad(each, behind).reshape(-1, FP8_GROUP) for each in (x, wide))
    codes, scale = round_float_tokens(groups)
    off = _moved(groups, errors, (codes, scale[:, :1]), KV_CODES["fp8"], lambda each: round_code(each, "fp8"))
    return off.reshape(len(x), -1)[:, : x.shape[1]]


def _moved(x: Array, wide: F64, right: tuple[Array, Array], largest: float, nearest: Callable[[Any], Array]) -> F64:
    """Codes and their scale: the scale moves by its share of the largest error of its row, and a code by as many steps
    as both take it past ties. Args: right: codes and scale of x.
    """
    codes, scale = (a.astype(np.float64) for a in right)
    moved = wide.max(axis=-1, keepdims=True) / largest + 4 * _U * scale
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = []
        for sign in (1, -1):
            end = x + sign * wide
            end = np.clip(end / np.maximum(scale - np.sign(end) * sign * moved, FLUSHED), -largest, largest)
            beyond = np.nextafter(end.astype(np.float32), np.float32(sign * np.inf))
            steps.append(np.abs(nearest(beyond) - codes))
    off = np.max(steps, axis=0) * (scale + moved) + np.abs(codes) * moved
    return np.where(np.isnan(off), np.where(np.isfinite(x), np.inf, 0.0), off) + FLUSHED * largest
