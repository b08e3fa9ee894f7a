"""Exact rounding to the compute dtypes, nearest and ties to even.

Called by the ops of this folder and by tests. A bfloat16 or float16 value travels as the float32 array of the same
numbers: 16 bits are only a set of numbers here, not a storage format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.dtypes import TOKEN
from albireo.encodings import encoding, is_encoding
from albireo.quantization.rounding import round_tokens, round_weights

F32 = NDArray[np.float32]


def round_to(x: NDArray[Any], dtype: str) -> F32:
    """x as float32 numbers that dtype can hold. Raises: KeyError for a dtype that is not computed in."""
    return _ROUND[dtype](np.asarray(x, np.float32))


def round_matrix(weight: F32, dtype: str) -> F32:
    """A matrix as the numbers that a compute dtype, or an encoding, holds instead."""
    return round_weights(weight, encoding(dtype)).decode() if is_encoding(dtype) else round_to(weight, dtype)


def _round_to_tokens(x: F32) -> F32:
    codes, scale = round_tokens(x)
    return codes * scale


def round_to_bfloat16(x: F32) -> F32:
    """Keeps the upper 16 bits; a carry out of the mantissa goes to the exponent, and past it to infinity."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    odd = (bits >> 16) & np.uint32(1)
    rounded = (bits + np.uint32(0x7FFF) + odd) & np.uint32(0xFFFF0000)
    # Rounding up the payload of a NaN could make an infinity of it.
    return np.where(np.isnan(x), np.float32(np.nan), rounded.view(np.float32)).astype(np.float32)


def round_to_float16(x: F32) -> F32:
    """Beyond 65504, and half a step more, is infinity."""
    with np.errstate(over="ignore"):
        return x.astype(np.float16).astype(np.float32)


def bfloat16_bits(x: F32) -> NDArray[np.uint16]:
    """The 16 bits of numbers that are already bfloat16."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bfloat16_bits(bits: NDArray[np.uint16]) -> F32:
    """The numbers 16 bits stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _keep(x: F32) -> F32:
    return x


_ROUND = {"float32": _keep, "bfloat16": round_to_bfloat16, "float16": round_to_float16, TOKEN: _round_to_tokens}
