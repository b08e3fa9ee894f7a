"""The IQ1, IQ2 and IQ3 types of GGUF: 8 or 4 numbers together are a point of a grid, with signs of their own: nests of
our encodings, whose codes are places among the few numbers there are.

Called by gguf_blocks.py. Blocks of 256 numbers. Every scale is a float16 times an odd number of up to 5 bits and a
power of two. Source: ggml-common.h and ggml-quants.c of ggml (MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.quantization.encoded import U8
from albireo.quantization.formats.arrays import nibbles, unpack_words
from albireo.quantization.formats.gguf_grids import grid
from albireo.quantization.formats.gguf_k_blocks import Nests
from albireo.quantization.formats.gguf_parts import half

#: [256, 8] of a byte of signs: 1 where a bit is set, which is -1.
_SIGNS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
#: [128, 8] of seven signs; the eighth makes the number of -1 even.
_SEVEN_SIGNS = _SIGNS[:128].copy()
_SEVEN_SIGNS[:, 7] = _SIGNS[:128].sum(axis=1) % 2


@cache
def _points(kind: str) -> NDArray[Any]:
    """[points] of a grid, as words of the 8 or 4 codes of positive numbers: those of the upper half of a table."""
    digits = grid(kind)
    middle = 8 if digits.shape[1] == 4 else 4
    words: NDArray[Any] = (digits + np.uint8(middle)).view(f"<u{digits.shape[1]}")[:, 0]
    return words


def _mirrored(points: NDArray[Any], signs: NDArray[Any]) -> U8:
    """Codes, [blocks, 256]: of a negative number all bits of the positive one's are turned, which mirrors a table.

    Args: points: words of 8 or 4 codes. signs: [..., 8] for 8 numbers each, 1 where they are negative.
    """
    bits = 15 if points.itemsize == 4 else 7
    turned = (signs * np.uint8(bits)).view(points.dtype)
    codes: U8 = (points.reshape(len(points), -1) ^ turned.reshape(len(points), -1)).view(np.uint8)
    return codes


def _words(data: U8, dtype: str) -> NDArray[Any]:
    """[blocks, n] bytes -> [blocks, words]."""
    return np.ascontiguousarray(data).view(dtype)


def _odd(numbers: NDArray[Any]) -> U8:
    """2 n + 1, as a signed number + 128."""
    return (2 * numbers + 129).astype(np.uint8)


def _seven_signs(words: NDArray[Any]) -> U8:
    """[blocks, n] words, the lowest 28 bits of which are signs of 32 numbers -> [blocks, n, 4, 8]."""
    signs: U8 = _SEVEN_SIGNS[(words[:, :, None] >> np.arange(0, 28, 7, dtype=np.uint32)) & np.uint32(127)]
    return signs


def _iq2_xxs(b: U8) -> Nests:
    # of each 32 numbers: four points, and a word of signs with 4 bits of scale above
    parts = b[:, 2:].reshape(len(b), 8, 8)
    words = _words(parts[:, :, 4:], "<u4")[:, :, 0]
    codes = _mirrored(_points("IQ2_XXS")[parts[:, :, :4]], _seven_signs(words))
    return codes, half(b[:, :2]), _odd(words >> np.uint32(28)), None, None


def _iq2_xs(b: U8) -> Nests:
    # of each 8 numbers: 9 bits of a point and seven signs; then 4 bits of scale for 16
    words = _words(b[:, 2:66], "<u2")
    codes = _mirrored(_points("IQ2_XS")[words & np.uint16(511)], _SEVEN_SIGNS[words >> np.uint16(9)])
    return codes, half(b[:, :2]), _odd(nibbles(b[:, 66:])), None, None


def _iq2_s(b: U8) -> Nests:
    # of each 8 numbers: 8 bits of a point, 8 signs, the point's two highest bits; then 4 bits of scale for 16
    points = b[:, 2:34] | (unpack_words(b[:, 66:74], 2).astype(np.uint16) << np.uint16(8))
    codes = _mirrored(_points("IQ2_S")[points], _SIGNS[b[:, 34:66]])
    return codes, half(b[:, :2]), _odd(nibbles(b[:, 74:])), None, None


def _iq3_xxs(b: U8) -> Nests:
    # eight points of each 32 numbers, all of them; then a word of signs with 4 bits of scale above for each 32
    words = _words(b[:, 66:], "<u4")
    codes = _mirrored(_points("IQ3_XXS")[b[:, 2:66]], _seven_signs(words))
    return codes, half(b[:, :2]), _odd(words >> np.uint32(28)), None, None


def _iq3_s(b: U8) -> Nests:
    # of each 4 numbers: 8 bits of a point; its highest bit; a bit of sign a number; then 4 bits of scale for 32
    high = np.unpackbits(b[:, 66:74], axis=1, bitorder="little")
    points = b[:, 2:66] | (high.astype(np.uint16) << np.uint16(8))
    codes = _mirrored(_points("IQ3_S")[points], _SIGNS[b[:, 74:106]])
    return codes, half(b[:, :2]), _odd(nibbles(b[:, 106:])), None, None


def _iq1_codes(points: NDArray[np.uint16], is_below: NDArray[np.bool_]) -> U8:
    """-1, 0 or 1, plus or minus an eighth, so numbers are eighths: -9, -7, -1, 1, 7, 9; is_below: of 8 numbers each."""
    twice = (2 * grid("IQ1_S")).view("<u8")[:, 0]
    codes: U8 = (twice[points] + ~is_below * np.uint64(0x0101010101010101)).view(np.uint8)
    return codes


def _iq1_s(b: U8) -> Nests:
    # of each 8 numbers: 8 bits of a point; a word for 32: three bits more for each, three of scale, one of delta
    words = _words(b[:, 34:], "<u2")
    high = (words[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)
    points = b[:, 2:34] | (high.reshape(-1, 32) << np.uint16(8))
    codes = _iq1_codes(points, np.repeat(words >> np.uint16(15), 4, axis=1).astype(np.bool_))
    return codes, half(b[:, :2]), _odd((words >> np.uint16(12)) & np.uint16(7)), None, None


def _iq1_m(b: U8) -> Nests:
    # of each 8 numbers: 8 bits of a point; half a byte, three bits more and one of delta; then four words of four
    # scales of 3 bits for 16 numbers, whose highest halves of bytes are the block's float16
    high = nibbles(b[:, 32:48])
    points = b[:, :32] | ((high & np.uint8(7)).astype(np.uint16) << np.uint16(8))
    words = _words(b[:, 48:], "<u2")
    tops = (words >> np.uint16(12)) << np.arange(0, 16, 4, dtype=np.uint16)
    block = half(np.bitwise_or.reduce(tops, axis=1, keepdims=True).view(np.uint8))
    scales = (words[:, :, None] >> np.arange(0, 12, 3, dtype=np.uint16)) & np.uint16(7)
    codes = _iq1_codes(points, (high & np.uint8(8)).astype(np.bool_))
    return codes, block, _odd(scales.reshape(-1, 16)), None, None


READERS: Mapping[str, Callable[[U8], Nests]] = {
    "IQ2_XXS": _iq2_xxs,
    "IQ2_XS": _iq2_xs,
    "IQ2_S": _iq2_s,
    "IQ3_XXS": _iq3_xxs,
    "IQ3_S": _iq3_s,
    "IQ1_S": _iq1_s,
    "IQ1_M": _iq1_m,
}
