"""The block types of GGUF: what a row of blocks means, as an Encoded.

    Q8_0 -> int8.g32    Q4_0 -> int4.g32          Q5_0 -> int8.g32          Q6_K -> int8.g16 (see ROUNDED_NOTE)
    MXFP4 -> fp4.g32    Q4_1, Q4_K -> int4.g32.affine    Q5_1, Q5_K -> int8.g32.affine

Called by models.gguf. A matrix [N, K] lies row by row, K / block blocks a row. In blocks of 32 the low halves of the
bytes are the first 16 numbers, the high halves the last 16. Source: ggml-common.h and ggml-quants.c of ggml (MIT).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from albireo.encodings import encoding
from albireo.quantization.encoded import F32, U8, Encoded, storable_scale
from albireo.quantization.formats.arrays import checked_e8m0, finite

Q6_NOTE = "the scale of each 16 numbers of Q6_K, a product of up to 19 bits, is rounded to 16 significant bits"
WIDER_NOTE = "5- and 6-bit codes are held in bytes: the numbers are kept, in 9 to 10 bits each instead of 5.5 to 6.6"


@dataclass(frozen=True, slots=True)
class BlockType:
    """Fields: size: numbers in a block, of num_bytes. encoding: None for numbers. read: see READERS."""

    size: int
    num_bytes: int
    encoding: str | None = None
    note: str = ""


#: Every type of ggml, by its number: those with an encoding, and F32, F16 and BF16, are read.
TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
}  # fmt: skip
BLOCKS = {
    "F32": BlockType(1, 4),
    "F16": BlockType(1, 2),
    "BF16": BlockType(1, 2),
    "Q8_0": BlockType(32, 34, "int8.g32"),
    "Q4_0": BlockType(32, 18, "int4.g32"),
    "Q4_1": BlockType(32, 20, "int4.g32.affine"),
    "Q5_0": BlockType(32, 22, "int8.g32", WIDER_NOTE),
    "Q5_1": BlockType(32, 24, "int8.g32.affine", WIDER_NOTE),
    "Q4_K": BlockType(256, 144, "int4.g32.affine"),
    "Q5_K": BlockType(256, 176, "int8.g32.affine", WIDER_NOTE),
    "Q6_K": BlockType(256, 210, "int8.g16", f"{WIDER_NOTE}; {Q6_NOTE}"),
    "MXFP4": BlockType(32, 17, "fp4.g32"),
}


def read_blocks(kind: str, data: U8, shape: tuple[int, int], name: str) -> Encoded:
    """A matrix of a type with an encoding.

    Args: data: its bytes. name: of the tensor, for errors.
    Raises: WeightMismatch for a scale that is not finite.
    """
    block = BLOCKS[kind]
    assert block.encoding is not None
    blocks = data.reshape(-1, block.num_bytes)
    if kind == "MXFP4":
        return _mxfp4(blocks, shape, name)
    with np.errstate(invalid="ignore"):  # zero times infinity is looked for below
        codes, scale, zero, offset = _READERS[kind](blocks, name)
    n, k = shape
    scale = finite(scale, name).reshape(n, -1)
    if offset is not None:
        offset = finite(offset, name).reshape(n, -1)
        return Encoded(encoding(block.encoding), codes.reshape(n, k), scale, offset=offset)
    zeros = np.full(scale.shape, zero, np.uint8)
    return Encoded(encoding(block.encoding), codes.reshape(n, k), storable_scale(scale), zero=zeros)


def _mxfp4(blocks: U8, shape: tuple[int, int], name: str) -> Encoded:
    n, k = shape
    codes, exponents = _nibbles(blocks[:, 1:]).reshape(n, k), checked_e8m0(blocks[:, 0], name).reshape(n, -1)
    return Encoded(encoding("fp4.g32"), codes, np.ones((n, 1), np.float32), gamma=exponents)


#: Codes [blocks, size], scales [blocks, groups], the zero of all of them, offsets [blocks, groups].
_Parts = tuple[U8, F32, int, F32 | None]


def _half(data: U8) -> F32:
    """[blocks, 2 n] bytes -> [blocks, n] float16 as float32."""
    return np.ascontiguousarray(data).view("<f2").astype(np.float32)


def _nibbles(data: U8) -> U8:
    """[..., n] bytes -> [..., 2 n]: the low halves, then the high halves."""
    codes = np.empty((*data.shape[:-1], 2, data.shape[-1]), np.uint8)
    np.bitwise_and(data, np.uint8(15), out=codes[..., 0, :])
    np.right_shift(data, np.uint8(4), out=codes[..., 1, :])
    return codes.reshape(*data.shape[:-1], -1)


def _fifth_bits(data: U8) -> U8:
    """[blocks, 4] bytes, a bit a number -> [blocks, 32], each 0 or 16."""
    return np.unpackbits(np.ascontiguousarray(data), axis=1, bitorder="little") << np.uint8(4)


def _q8_0(b: U8, name: str) -> _Parts:
    return b[:, 2:] ^ np.uint8(0x80), _half(b[:, :2]), 128, None


def _q4_0(b: U8, name: str) -> _Parts:
    return _nibbles(b[:, 2:]), _half(b[:, :2]), 8, None


def _q4_1(b: U8, name: str) -> _Parts:
    return _nibbles(b[:, 4:]), _half(b[:, :2]), 0, _half(b[:, 2:4])


def _q5_0(b: U8, name: str) -> _Parts:
    return _nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6]), _half(b[:, :2]), 16, None


def _q5_1(b: U8, name: str) -> _Parts:
    return _nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8]), _half(b[:, :2]), 0, _half(b[:, 2:4])


def _k_scales(b: U8) -> tuple[F32, F32]:
    """Scales and offsets of the eight groups of a block of Q4_K or Q5_K: 6 bits each, times two float16.

    Bytes 0-3 and 4-7 hold scales and minima of the first four; of the last four the low halves are in bytes 8-11, the
    two highest bits above the first four's.
    """
    packed = b[:, 4:16]
    first, second, third = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    low, high = np.uint8(0x3F), np.uint8(6)
    scales = np.concatenate((first & low, (third & np.uint8(15)) | ((first >> high) << np.uint8(4))), axis=1)
    minima = np.concatenate((second & low, (third >> np.uint8(4)) | ((second >> high) << np.uint8(4))), axis=1)
    # 11 bits times 6: exact in float32
    return scales.astype(np.float32) * _half(b[:, :2]), -(minima.astype(np.float32) * _half(b[:, 2:4]))


def _q4_k(b: U8, name: str) -> _Parts:
    scale, offset = _k_scales(b)
    # 32 bytes hold two groups: the low halves one, the high halves the next
    return _nibbles(b[:, 16:].reshape(-1, 4, 32)).reshape(-1, 256), scale, 0, offset


def _q5_k(b: U8, name: str) -> _Parts:
    scale, offset = _k_scales(b)
    # bit g of byte i is the fifth of number i of group g
    high = (b[:, None, 16:48] >> np.arange(8, dtype=np.uint8)[:, None]) & np.uint8(1)
    low = _nibbles(b[:, 48:].reshape(-1, 4, 32)).reshape(-1, 8, 32)
    return (low | (high << np.uint8(4))).reshape(-1, 256), scale, 0, offset


def _q6_k(b: U8, name: str) -> _Parts:
    # two halves of 128 numbers: 64 bytes of low bits, 32 of high ones, two a number, quarter by quarter
    low = _nibbles(b[:, :128].reshape(-1, 2, 64)).reshape(-1, 2, 4, 32)
    high = (b[:, 128:192].reshape(-1, 2, 1, 32) >> np.arange(0, 8, 2, dtype=np.uint8)[:, None]) & np.uint8(3)
    scale = np.ascontiguousarray(b[:, 192:208]).view(np.int8).astype(np.float32) * _half(b[:, 208:])
    return (low | (high << np.uint8(4))).reshape(-1, 256), scale, 32, None


_READERS: dict[str, Callable[[U8, str], _Parts]] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
