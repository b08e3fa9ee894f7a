"""Round to nearest: the quickest way to few bits, row by row, with nothing calibrated. And activations, token by token.

Called where a checkpoint of floating-point weights is loaded in fewer bits, and by the reference backend. methods/
holds the slower ways that look at data.
"""

from __future__ import annotations

import numpy as np

from albireo.encodings import Encoding
from albireo.errors import ConfigError
from albireo.quantization.encoded import F32, Encoded, e4m3_codes, storable_scale
from albireo.quantization.methods.progressive import search_progressive

_INT8_MAX = np.float32(127)


def round_tokens(x: F32) -> tuple[F32, F32]:
    """Activations [T, K] as int8.token: each row times 127 / its largest magnitude, ties to even.

    Returns: q [T, K] whole numbers from -127 to 127; scale [T, 1] float32, so that q * scale stands for x.
    """
    x = np.asarray(x, np.float32)
    largest = np.max(np.abs(x), axis=1, keepdims=True, initial=np.float32(0))
    scale = largest / _INT8_MAX
    with np.errstate(divide="ignore", over="ignore"):
        factor = np.where(largest > 0, _INT8_MAX / largest, np.float32(0))
        factor = np.where(np.isinf(factor), np.float32(0), factor)  # below 4e-37: such a row counts as zero
    return np.rint(x * factor).astype(np.float32), scale


def round_weights(weight: F32, encoding: Encoding) -> Encoded:
    """A matrix [N, K] in an encoding of kind integer, float or progressive, each group by its own largest numbers."""
    if encoding.kind == "float":
        return _round_float(weight, encoding)
    if encoding.kind == "progressive":
        return search_progressive(weight, encoding, shrinks=(1.0,), widest=(15, 12)).encode(weight)
    if encoding.kind == "integer":
        return _round_symmetric(weight, encoding) if encoding.bits == 8 else _round_asymmetric(weight, encoding)
    raise ConfigError(f"{encoding} cannot be rounded to: no scale and offset follow from numbers alone; choose int4.gG")


def _groups(weight: F32, encoding: Encoding) -> F32:
    """[N, groups, size], padded with zeros at the end of each row."""
    n, k = weight.shape
    size = k if encoding.group is None else encoding.group
    count = encoding.num_groups(k)
    padded = np.zeros((n, count * size), np.float32)
    padded[:, :k] = weight
    return padded.reshape(n, count, size)


def _round_symmetric(weight: F32, encoding: Encoding) -> Encoded:
    groups = _groups(weight, encoding)
    scale = np.max(np.abs(groups), axis=2, initial=np.float32(0)) / _INT8_MAX
    if encoding.group is not None:
        scale = storable_scale(scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        q = np.rint(groups / np.where(scale > 0, scale, np.float32(np.inf))[:, :, None])
    codes = (np.clip(q, -127, 127) + 128).astype(np.uint8).reshape(len(weight), -1)[:, : weight.shape[1]]
    return Encoded(encoding, np.ascontiguousarray(codes), scale, zero=np.full(scale.shape, 128, np.uint8))


def _round_asymmetric(weight: F32, encoding: Encoding) -> Encoded:
    """Sixteen steps from the smallest to the largest number, zero among them."""
    groups = _groups(weight, encoding)
    low, high = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    scale = storable_scale((high - low) / np.float32(15))
    divisor = np.where(scale > 0, scale, np.float32(np.inf))
    zero = np.clip(np.rint(-low / divisor), 0, 15)
    q = np.clip(np.rint(groups / divisor[:, :, None]) + zero[:, :, None], 0, 15)
    codes = q.astype(np.uint8).reshape(len(weight), -1)[:, : weight.shape[1]]
    return Encoded(encoding, np.ascontiguousarray(codes), scale, zero=zero.astype(np.uint8))


def _round_float(weight: F32, encoding: Encoding) -> Encoded:
    groups = _groups(weight, encoding)
    scale = np.max(np.abs(groups), axis=2, initial=np.float32(0)) / np.float32(448)
    code = e4m3_codes(groups / np.where(scale > 0, scale, np.float32(np.inf))[:, :, None])
    codes = code.reshape(len(weight), -1)[:, : weight.shape[1]]
    return Encoded(encoding, np.ascontiguousarray(codes), scale)
