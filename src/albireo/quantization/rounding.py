"""Round to nearest: the quickest way to few bits, row by row, with nothing calibrated. And activations, token by token.

Called where a checkpoint of floating-point weights is loaded in fewer bits, and by the reference backend. methods/
holds the slower ways that look at data.
"""

from __future__ import annotations

import numpy as np

from albireo.dtypes import FP8_GROUP
from albireo.encodings import Encoding
from albireo.errors import ConfigError
from albireo.quantization.encoded import (
    F32,
    Encoded,
    e2m1_codes,
    e4m3_codes,
    e4m3_values,
    gamma_values,
    storable_scale,
)
from albireo.quantization.methods.progressive import search_progressive

_INT8_MAX, _E4M3_MAX, _E2M1_MAX = np.float32(127), np.float32(448), np.float32(6)


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


def round_float_tokens(x: F32) -> tuple[F32, F32]:
    """Activations [T, K] as fp8.g128.token: each FP8_GROUP of a row times 448 / its largest magnitude, ties to even.

    Returns: q [T, K] numbers of e4m3; scale [T, K] float32, one number for all of a group, so that q * scale stands for
    x. The scale is 0 where it would be below the normal numbers, and NaN where a group has what is no number.
    """
    x = np.asarray(x, np.float32)
    count = -(-x.shape[1] // FP8_GROUP)
    groups = np.zeros((len(x), count * FP8_GROUP), np.float32)
    groups[:, : x.shape[1]] = x
    groups = groups.reshape(len(x), count, FP8_GROUP)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        largest = np.max(np.abs(groups), axis=2, keepdims=True)
        scale = largest / _E4M3_MAX
        scale = np.where(scale < np.float32(2.0**-126), np.float32(0), scale)
        scale = np.where(np.isfinite(groups).all(axis=2, keepdims=True), scale, np.float32(np.nan))
        factor = np.where(scale > 0, _E4M3_MAX / largest, np.float32(0))
    scaled = np.where(scale > 0, groups, np.float32(0)) * factor
    codes = e4m3_values()[e4m3_codes(scaled)].reshape(len(x), -1)[:, : x.shape[1]]
    return codes, np.repeat(scale[:, :, 0], FP8_GROUP, axis=1)[:, : x.shape[1]].astype(np.float32)


def round_weights(weight: F32, encoding: Encoding) -> Encoded:
    """A matrix [N, K] in an encoding of any kind but affine, each group by its own largest numbers."""
    if encoding.kind == "float":
        return _round_float(weight, encoding)
    if encoding.kind == "progressive":
        return search_progressive(weight, encoding, shrinks=(1.0,), widest=(15, 12)).encode(weight)
    if encoding.kind == "microscaled":
        return _round_microscaled(weight, encoding)
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


def _round_microscaled(weight: F32, encoding: Encoding) -> Encoded:
    """Powers of two as the specification has them: the largest number's own, two less, so that it may be cut to 6. Of
    e4m3 scales a group's largest number is a 6; and the largest of a channel's scales is 448."""
    groups = _groups(weight, encoding)
    largest = np.max(np.abs(groups), axis=2, initial=np.float32(0))
    if encoding.group == 32:
        exponent = np.frexp(largest)[1] - 3
        gamma = np.where(largest > 0, np.clip(exponent + 127, 0, 254), 0).astype(np.uint8)
        # no code of a group says that there was no number; the row's scale does
        is_finite = np.isfinite(largest).all(axis=1, keepdims=True)
        scale = np.where(is_finite, np.float32(1), np.float32(np.nan))
    else:
        scale = np.max(largest, axis=1, keepdims=True) / (_E2M1_MAX * _E4M3_MAX)
        divisor = np.where(scale > 0, scale, np.float32(np.inf))
        gamma = e4m3_codes(largest / divisor / _E2M1_MAX)
    step = gamma_values(encoding)[gamma] * scale
    code = e2m1_codes(groups / np.where(step > 0, step, np.float32(np.inf))[:, :, None])
    codes = code.reshape(len(weight), -1)[:, : weight.shape[1]]
    return Encoded(encoding, np.ascontiguousarray(codes), scale, gamma=gamma)


def _round_float(weight: F32, encoding: Encoding) -> Encoded:
    groups = _groups(weight, encoding)
    scale = np.max(np.abs(groups), axis=2, initial=np.float32(0)) / _E4M3_MAX
    code = e4m3_codes(groups / np.where(scale > 0, scale, np.float32(np.inf))[:, :, None])
    codes = code.reshape(len(weight), -1)[:, : weight.shape[1]]
    return Encoded(encoding, np.ascontiguousarray(codes), scale)
