"""The block types of GGUF: what a row of blocks means, as an Encoded. BLOCKS says in which encoding.

Called by models.gguf. A matrix [N, K] lies row by row, K / block blocks a row. The types of llama.cpp's first years and
those that are a code and a scale are read here, the others in gguf_k_blocks.py and gguf_grid_blocks.py. Source:
ggml-common.h and ggml-quants.c of ggml (MIT).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from albireo.encodings import encoding
from albireo.quantization.encoded import F32, IQ4_NUMBERS, U8, Encoded, storable_scale
from albireo.quantization.formats import gguf_grid_blocks, gguf_k_blocks
from albireo.quantization.formats.arrays import checked_e8m0, finite
from albireo.quantization.formats.gguf_parts import ZERO, Parts, Reader, half, nibbles, pairs, signed


@dataclass(frozen=True, slots=True)
class BlockType:
    """Fields: size: numbers in a block, of num_bytes. encoding: None for numbers."""

    size: int
    num_bytes: int
    encoding: str | None = None

    @property
    def note(self) -> str:
        """What a matrix costs more than its file, where that is half of it or more."""
        if self.encoding is None:
            return ""
        stored, held = 8 * self.num_bytes / self.size, 8 * encoding(self.encoding).bytes_per_weight
        return f"the numbers are kept, in {held:g} bits each instead of {stored:.3g}" if held >= 1.5 * stored else ""


#: Every type of ggml, by its number: those of BLOCKS are read.
TYPE_NAMES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 9: "Q8_1", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S",
    20: "IQ4_NL", 21: "IQ3_S", 22: "IQ2_S", 23: "IQ4_XS", 24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64",
    29: "IQ1_M", 30: "BF16", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4", 40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
}  # fmt: skip
TYPE_NUMBERS = {name: number for number, name in TYPE_NAMES.items()}
BLOCKS = {
    "F32": BlockType(1, 4),
    "F16": BlockType(1, 2),
    "BF16": BlockType(1, 2),
    "I32": BlockType(1, 4),
    "Q8_0": BlockType(32, 34, "int8.g32"),
    "Q4_0": BlockType(32, 18, "int4.g32"),
    "Q4_1": BlockType(32, 20, "int4.g32.affine"),
    "Q5_0": BlockType(32, 22, "int8.g32"),
    "Q5_1": BlockType(32, 24, "int8.g32.affine"),
    "Q2_K": BlockType(256, 84, "q2_k"),
    "Q3_K": BlockType(256, 110, "q3_k"),
    "Q4_K": BlockType(256, 144, "q4_k"),
    "Q5_K": BlockType(256, 176, "q5_k"),
    "Q6_K": BlockType(256, 210, "q6_k"),
    "IQ4_NL": BlockType(32, 18, "int8.g32"),
    "IQ4_XS": BlockType(256, 136, "iq4_xs"),
    "IQ3_S": BlockType(256, 110, "iq3_s"),
    "IQ3_XXS": BlockType(256, 98, "iq3_xxs"),
    "IQ2_S": BlockType(256, 82, "iq2_s"),
    "IQ2_XS": BlockType(256, 74, "iq2_s"),
    "IQ2_XXS": BlockType(256, 66, "iq2_xxs"),
    "IQ1_M": BlockType(256, 56, "iq1_m"),
    "IQ1_S": BlockType(256, 50, "iq1_s"),
    "TQ2_0": BlockType(256, 66, "int4.g128"),
    "TQ1_0": BlockType(256, 54, "int4.g128"),
    "MXFP4": BlockType(32, 17, "fp4.g32"),
    "NVFP4": BlockType(64, 36, "fp4.g16"),
    "Q2_0": BlockType(64, 18, "int4.g64"),
    "Q1_0": BlockType(128, 18, "int4.g128"),
}


#: Types whose matrices have a factor each in a tensor beside them.
SCALED = ("NVFP4",)
_LARGEST = 0x7F


def read_blocks(kind: str, data: U8, shape: tuple[int, int], name: str, factor: F32 | None = None) -> Encoded:
    """A matrix of a type with an encoding.

    Args:
        data: its bytes. name: of the tensor, for errors.
        factor: [1] of SCALED, what its numbers are multiplied with, which lies beside it; None: 1.
    Raises: WeightMismatch for a scale that is not finite.
    """
    block = BLOCKS[kind]
    assert block.encoding is not None
    blocks = data.reshape(-1, block.num_bytes)
    if kind == "NVFP4":
        return _nvfp4(blocks, shape, name, factor)
    if kind == "MXFP4":
        return _mxfp4(blocks, shape, name)
    if kind in _NESTS:
        return _nested(kind, blocks, shape, name)
    with np.errstate(invalid="ignore"):  # zero times infinity is looked for below
        codes, scale, zero, offset = _READERS[kind](blocks)
    n, k = shape
    scale = finite(scale, name).reshape(n, -1)
    if offset is not None:
        offset = finite(offset, name).reshape(n, -1)
        return Encoded(encoding(block.encoding), codes.reshape(n, k), scale, offset=offset)
    zeros = np.full(scale.shape, zero, np.uint8)
    return Encoded(encoding(block.encoding), codes.reshape(n, k), storable_scale(scale), zero=zeros)


def _nested(kind: str, blocks: U8, shape: tuple[int, int], name: str) -> Encoded:
    n, k = shape
    codes, scale, gamma, offset, zero = _NESTS[kind](blocks)
    offset = None if offset is None else finite(offset, name).reshape(n, -1)
    zero = None if zero is None else zero.reshape(n, -1)
    e = encoding(str(BLOCKS[kind].encoding))
    return Encoded(e, codes.reshape(n, k), finite(scale, name).reshape(n, -1), zero, gamma.reshape(n, -1), offset)


def _nvfp4(blocks: U8, shape: tuple[int, int], name: str, factor: F32 | None) -> Encoded:
    """Four scales of e4m3 without a sign, of which the largest is 0; then the codes of each sixteen."""
    n, k = shape
    gamma = blocks[:, :4] & np.uint8(_LARGEST)
    gamma[gamma == _LARGEST] = 0
    scale = np.ones(1, np.float32) if factor is None else finite(factor, name)
    codes = nibbles(blocks[:, 4:].reshape(-1, 8)).reshape(n, k)
    return Encoded(encoding("fp4.g16"), codes, np.repeat(scale[None], n, axis=0), gamma=gamma.reshape(n, -1))


def _mxfp4(blocks: U8, shape: tuple[int, int], name: str) -> Encoded:
    n, k = shape
    codes, exponents = nibbles(blocks[:, 1:]).reshape(n, k), checked_e8m0(blocks[:, 0], name).reshape(n, -1)
    return Encoded(encoding("fp4.g32"), codes, np.ones((n, 1), np.float32), gamma=exponents)


def _fifth_bits(data: U8) -> U8:
    """[blocks, 4] bytes, a bit a number -> [blocks, 32], each 0 or 16."""
    return np.unpackbits(np.ascontiguousarray(data), axis=1, bitorder="little") << np.uint8(4)


def _q8_0(b: U8) -> Parts:
    return b[:, 2:] ^ np.uint8(0x80), half(b[:, :2]), 128, None


def _q4_0(b: U8) -> Parts:
    return nibbles(b[:, 2:]), half(b[:, :2]), 8, None


def _q4_1(b: U8) -> Parts:
    return nibbles(b[:, 4:]), half(b[:, :2]), 0, half(b[:, 2:4])


def _q5_0(b: U8) -> Parts:
    return nibbles(b[:, 6:]) | _fifth_bits(b[:, 2:6]), half(b[:, :2]), 16, None


def _q5_1(b: U8) -> Parts:
    return nibbles(b[:, 8:]) | _fifth_bits(b[:, 4:8]), half(b[:, :2]), 0, half(b[:, 2:4])


def _iq4_nl(b: U8) -> Parts:
    return signed(IQ4_NUMBERS[nibbles(b[:, 2:])]), half(b[:, :2]), ZERO, None


def _tq1_0(b: U8) -> Parts:
    """Five digits in base 3 a byte, as a fraction of 256: each is what goes over 256 when the rest is tripled."""

    def digits(data: U8, count: int) -> U8:
        rest = data[:, None] * (np.uint8(3) ** np.arange(count, dtype=np.uint8))[:, None]  # modulo 256
        return ((rest.astype(np.uint16) * np.uint16(3)) >> np.uint16(8)).astype(np.uint8).reshape(len(data), -1)

    # the first digits of 32 bytes, the second ones ...; of 16; and four of 4
    codes = np.concatenate((digits(b[:, :32], 5), digits(b[:, 32:48], 5), digits(b[:, 48:52], 4)), axis=1)
    return codes, np.repeat(half(b[:, 52:]), 2, axis=1), 1, None


def _tq2_0(b: U8) -> Parts:
    return pairs(b[:, :64].reshape(-1, 32)).reshape(-1, 256), np.repeat(half(b[:, 64:]), 2, axis=1), 1, None


def _q2_0(b: U8) -> Parts:
    """From -1 to 2; four codes a byte, one behind the other."""
    codes = (b[:, 2:, None] >> np.arange(0, 8, 2, dtype=np.uint8)) & np.uint8(3)
    return codes.reshape(-1, 64), half(b[:, :2]), 1, None


def _q1_0(b: U8) -> Parts:
    """-1 or 1, a bit each."""
    bits = np.unpackbits(np.ascontiguousarray(b[:, 2:]), axis=1, bitorder="little")
    return bits * np.uint8(2), half(b[:, :2]), 1, None


_NESTS = {**gguf_k_blocks.READERS, **gguf_grid_blocks.READERS}
_READERS: Mapping[str, Reader] = {
    "Q8_0": _q8_0,
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "IQ4_NL": _iq4_nl,
    "TQ1_0": _tq1_0,
    "TQ2_0": _tq2_0,
    "Q2_0": _q2_0,
    "Q1_0": _q1_0,
}
