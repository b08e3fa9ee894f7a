"""Exact rounding to the compute dtypes, nearest and ties to even.

Called by the ops of this folder and by tests. A bfloat16 or float16 value travels as the float32 array of the same
numbers: 16 bits are only a set of numbers here, not a storage format.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.dtypes import FP8_TOKEN, KV_CODES, TOKEN
from albireo.encodings import encoding, is_encoding
from albireo.quantization.rounding import round_float_tokens, round_tokens, round_weights

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


def round_to_e4m3(x: F32) -> F32:
    """Three bits of mantissa, exponents from 2^-6 to 2^8; below lie multiples of 2^-9. 448 is the largest there is."""
    x = np.asarray(x, np.float32)
    with np.errstate(invalid="ignore"):
        exponent = np.clip(np.frexp(x)[1] - 1, -6, 8)
        nearest = np.ldexp(np.rint(np.ldexp(x, 3 - exponent)), exponent - 3)
        return np.asarray(np.clip(nearest, -448, 448), np.float32)


def round_code(x: NDArray[Any], dtype: str) -> F32:
    """The nearest number that int8 or fp8 has a code for."""
    return np.rint(x).astype(np.float32) if dtype == "int8" else round_to_e4m3(x)


def scaled_codes(x: NDArray[Any], dtype: str) -> tuple[F32, F32]:
    """x as a KV cache of codes holds it: numbers that int8 or fp8 has, and a scale for all of the last dim.

    The scale takes the largest number to the largest code; it is 0 where it would be below the normal numbers, and NaN
    where x holds what is no number. codes * scale is what is meant. Raises: KeyError for another dtype.
    """
    x = np.asarray(x, np.float32)
    with np.errstate(invalid="ignore"):
        scale = np.abs(x).max(axis=-1, keepdims=True) / np.float32(KV_CODES[dtype])
        scale = np.where(scale < np.float32(2.0**-126), np.float32(0), scale)
        scale = np.where(np.isfinite(x).all(axis=-1, keepdims=True), scale, np.float32(np.nan))
        is_scaled = scale > 0
        codes = round_code(np.where(is_scaled, x, 0) / np.where(is_scaled, scale, np.float32(1)), dtype)
    return codes, scale.astype(np.float32)


def round_kv(x: NDArray[Any], dtype: str) -> F32:
    """Keys or values [..., D] as a KV cache of dtype holds them. Raises: KeyError for a dtype that none has."""
    if dtype not in KV_CODES:
        return round_to(x, dtype)
    codes, scale = scaled_codes(x, dtype)
    return codes * scale


def bfloat16_bits(x: F32) -> NDArray[np.uint16]:
    """The 16 bits of numbers that are already bfloat16."""
    return (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def from_bfloat16_bits(bits: NDArray[np.uint16]) -> F32:
    """The numbers 16 bits stand for."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _round_to_float_tokens(x: F32) -> F32:
    codes, scale = round_float_tokens(x)
    return codes * scale


def _keep(x: F32) -> F32:
    return x


_ROUND = {
    "float32": _keep,
    "bfloat16": round_to_bfloat16,
    "float16": round_to_float16,
    TOKEN: _round_to_tokens,
    FP8_TOKEN: _round_to_float_tokens,
}
