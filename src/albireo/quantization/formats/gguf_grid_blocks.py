"""The IQ1, IQ2 and IQ3 types of GGUF: 8 or 4 numbers together are a point of a grid, with signs of their own.

Called by gguf_blocks.py. Blocks of 256 numbers. Every scale is a float16 times an odd number of up to 5 bits and a
power of two: 16 significant bits. Source: ggml-common.h and ggml-quants.c of ggml (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.quantization.encoded import F32, U8
from albireo.quantization.formats.arrays import nibbles, unpack_words
from albireo.quantization.formats.gguf_grids import grid
from albireo.quantization.formats.gguf_parts import ZERO, Parts, Reader, half, signed

_EIGHTH = np.float32(0.125)
_MAGNITUDES_2 = np.array([8, 25, 43], np.int8)
_MAGNITUDES_3 = np.array([4, 12, 20, 28, 36, 44, 52, 62], np.int8)
#: [256, 8] of a byte of signs: where a bit is set, -1.
_SIGNS = 1 - 2 * np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view(np.int8)
#: [128, 8] of seven signs; the eighth makes the number of -1 even.
_SEVEN_SIGNS = np.concatenate((_SIGNS[:128, :7], _SIGNS[:128, :7].prod(axis=1, keepdims=True, dtype=np.int8)), axis=1)


def _words(data: U8, dtype: str) -> NDArray[Any]:
    """[blocks, n] bytes -> [blocks, words]."""
    return np.ascontiguousarray(data).view(dtype)


def _odd(numbers: NDArray[Any]) -> F32:
    """2 n + 1."""
    return (2 * numbers.astype(np.int32) + 1).astype(np.float32)


def _seven_signs(words: NDArray[Any]) -> NDArray[np.int8]:
    """[blocks, n] words, the lowest 28 bits of which are signs of 32 numbers -> [blocks, n, 4, 8]."""
    signs: NDArray[np.int8] = _SEVEN_SIGNS[(words[:, :, None] >> np.arange(0, 28, 7, dtype=np.uint32)) & np.uint32(127)]
    return signs


def _iq2_xxs(b: U8) -> Parts:
    # of each 32 numbers: four points, and a word of signs with 4 bits of scale above
    parts = b[:, 2:].reshape(len(b), 8, 8)
    words = _words(parts[:, :, 4:], "<u4")[:, :, 0]
    numbers = _MAGNITUDES_2[grid("IQ2_XXS")][parts[:, :, :4]] * _seven_signs(words)
    return signed(numbers), _odd(words >> np.uint32(28)) * half(b[:, :2]) * _EIGHTH, ZERO, None


def _iq2_xs(b: U8) -> Parts:
    # of each 8 numbers: 9 bits of a point and seven signs; then 4 bits of scale for 16
    words = _words(b[:, 2:66], "<u2")
    numbers = _MAGNITUDES_2[grid("IQ2_XS")][words & np.uint16(511)] * _SEVEN_SIGNS[words >> np.uint16(9)]
    return signed(numbers), _odd(nibbles(b[:, 66:])) * half(b[:, :2]) * _EIGHTH, ZERO, None


def _iq2_s(b: U8) -> Parts:
    # of each 8 numbers: 8 bits of a point, 8 signs, the point's two highest bits; then 4 bits of scale for 16
    points = b[:, 2:34] | (unpack_words(b[:, 66:74], 2).astype(np.uint16) << np.uint16(8))
    numbers = _MAGNITUDES_2[grid("IQ2_S")][points] * _SIGNS[b[:, 34:66]]
    return signed(numbers), _odd(nibbles(b[:, 74:])) * half(b[:, :2]) * _EIGHTH, ZERO, None


def _iq3_xxs(b: U8) -> Parts:
    # eight points of each 32 numbers, all of them; then a word of signs with 4 bits of scale above for each 32
    words = _words(b[:, 66:], "<u4")
    numbers = _MAGNITUDES_3[grid("IQ3_XXS")][b[:, 2:66]].reshape(-1, 8, 4, 8) * _seven_signs(words)
    return signed(numbers), _odd(words >> np.uint32(28)) * half(b[:, :2]) * np.float32(0.25), ZERO, None


def _iq3_s(b: U8) -> Parts:
    """Numbers are odd from -15 to 15, so 2 code - 15."""
    # of each 4 numbers: 8 bits of a point; its highest bit; a bit of sign a number; then 4 bits of scale for 32
    high = np.unpackbits(b[:, 66:74], axis=1, bitorder="little")
    magnitudes = grid("IQ3_S")[b[:, 2:66] | (high.astype(np.uint16) << np.uint16(8))].reshape(-1, 256)
    is_negative = np.unpackbits(b[:, 74:106], axis=1, bitorder="little").astype(np.bool_)
    codes = np.where(is_negative, np.uint8(7) - magnitudes, np.uint8(8) + magnitudes)
    scale = _odd(nibbles(b[:, 106:])) * half(b[:, :2])
    return codes, 2 * scale, 0, -15 * scale


def _iq1_s(b: U8) -> Parts:
    # of each 8 numbers: 8 bits of a point; a word for 32: three bits more for each, three of scale, one of delta
    words = _words(b[:, 34:], "<u2")
    high = (words[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)
    codes = grid("IQ1_S")[b[:, 2:34] | (high.reshape(-1, 32) << np.uint16(8))].reshape(-1, 256)
    scale = _odd((words >> np.uint16(12)) & np.uint16(7)) * half(b[:, :2])
    # -1, 0 or 1, plus or minus an eighth
    offset = scale * np.where(words >> np.uint16(15), np.float32(-1.125), np.float32(-0.875))
    return codes, scale, 0, offset


def _iq1_m(b: U8) -> Parts:
    """An eighth is added or taken off for each 8 numbers, so numbers are eighths: -9 to 9."""
    # of each 8 numbers: 8 bits of a point; half a byte, three bits more and one of delta; then four words of four
    # scales of 3 bits for 16 numbers, whose highest halves of bytes are the block's float16
    high = nibbles(b[:, 32:48])
    points = b[:, :32] | ((high & np.uint8(7)).astype(np.uint16) << np.uint16(8))
    delta = np.where(high & np.uint8(8), np.int8(-1), np.int8(1))
    numbers = 8 * (grid("IQ1_S")[points].view(np.int8) - np.int8(1)) + delta[:, :, None]
    words = _words(b[:, 48:], "<u2")
    tops = (words >> np.uint16(12)) << np.arange(0, 16, 4, dtype=np.uint16)
    block = half(np.bitwise_or.reduce(tops, axis=1, keepdims=True).view(np.uint8))
    scales = (words[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)
    return signed(numbers), _odd(scales.reshape(-1, 16)) * block * _EIGHTH, ZERO, None


READERS: Mapping[str, Reader] = {
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
    "IQ1_S": _iq1_s,
    "IQ1_M": _iq1_m,
}
