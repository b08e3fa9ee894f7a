"""The K types of GGUF, and IQ4_XS: blocks of 256 numbers, in groups with scales of a few bits each: the nests of our
encodings.

Called by gguf_blocks.py. Source: ggml-common.h and ggml-quants.c of ggml (MIT).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from albireo.quantization.encoded import F32, U8
from albireo.quantization.formats.arrays import nibbles as halves_of_bytes
from albireo.quantization.formats.gguf_parts import half, nibbles, pairs

#: Codes [blocks, 256], scales [blocks, 1], their gammas [blocks, groups]; offsets and what they are multiplied with,
#: alike.
Nests = tuple[U8, F32, U8, F32 | None, U8 | None]


def _q2_k(b: U8) -> Nests:
    # 16 groups: a byte each of scale and minimum, then two halves of 32 bytes, two bits a number, quarter by quarter
    codes = pairs(b[:, 16:80].reshape(-1, 32)).reshape(-1, 256)
    return codes, half(b[:, 80:82]), b[:, :16] & np.uint8(15), -half(b[:, 82:]), b[:, :16] >> np.uint8(4)


def _q3_k(b: U8) -> Nests:
    low = pairs(b[:, 32:96].reshape(-1, 32)).reshape(-1, 8, 32)
    # bit g of byte i is the third of number i of group g; where it is not set, 4 is taken off
    high = (b[:, None, :32] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    # the low halves of 8 bytes are those of the first 8 scales; the two highest bits are in 4 bytes, four by four
    gamma = nibbles(b[:, 96:104]) | (pairs(b[:, 104:108]).reshape(-1, 16) << np.uint8(4))
    return (low | (high << np.uint8(2))).reshape(-1, 256), half(b[:, 108:]), gamma + np.uint8(128 - 32), None, None


def _k_scales(b: U8) -> tuple[U8, U8]:
    """Scales and minima of the eight groups of a block of Q4_K or Q5_K, 6 bits each.

    Bytes 0-3 and 4-7 hold scales and minima of the first four; of the last four the low halves are in bytes 8-11, the
    two highest bits above the first four's.
    """
    packed = b[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    low, high = np.uint8(0x3F), np.uint8(6)
    scales = np.concatenate((first & low, (third & np.uint8(15)) | ((first >> high) << np.uint8(4))), axis=1)
    minima = np.concatenate((second & low, (third >> np.uint8(4)) | ((second >> high) << np.uint8(4))), axis=1)
    return scales, minima


def _q4_k(b: U8) -> Nests:
    gamma, minima = _k_scales(b)
    # 32 bytes hold two groups: the low halves one, the high halves the next
    codes = nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256)
    return codes, half(b[:, :2]), gamma, -half(b[:, 2:4]), minima


def _q5_k(b: U8) -> Nests:
    gamma, minima = _k_scales(b)
    # bit g of byte i is the fifth of number i of group g
    high = (b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    low = nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    codes = (low | (high << np.uint8(4))).reshape(-1, 256)
    return codes, half(b[:, :2]), gamma, -half(b[:, 2:4]), minima


def _q6_k(b: U8) -> Nests:
    # two halves of 128 numbers: 64 bytes of low bits, 32 of high ones, two a number, quarter by quarter
    low = nibbles(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = (b[:, 128:192].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & np.uint8(3)
    codes = (low | (high << np.uint8(4))).reshape(-1, 256)
    return codes, half(b[:, 208:]), b[:, 192:208] ^ np.uint8(0x80), None, None


def _iq4_xs(b: U8) -> Nests:
    # eight scales of 6 bits: the two highest of each in a word, then the low halves; then as eight blocks of 32
    high = pairs(b[:, 2:4]).swapaxes(1, 2).reshape(-1, 8)
    gamma = (halves_of_bytes(b[:, 4:8]) | (high << np.uint8(4))) + np.uint8(128 - 32)
    return nibbles(b[:, 8:].reshape(-1, 8, 16)).reshape(-1, 256), half(b[:, :2]), gamma, None, None


READERS: Mapping[str, Callable[[U8], Nests]] = {
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_XS": _iq4_xs,
}
