"""DeviceMatrix: a weight matrix in device memory, as kernels read it.

Made by constants.py from a PackedConstant's bytes, read by linears and embeddings. Rows are output channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from albireo.encodings import Encoding

#: Inputs of a plane: a word has one code of each of 4 planes (8 bits) or 8 (4 bits).
PLANE = 32


@dataclass(frozen=True, slots=True)
class DeviceMatrix:
    """A matrix [rows, cols] of a compute dtype, or of an encoding (albireo/encodings.py).

    Fields:
        dtype: float32, float16, bfloat16, or the name of an encoding.
        codes: [rows, cols] in a compute dtype; int8: the signed codes. fp8: float8_e4m3fn [rows, cols rounded up to
            128], each 128 inputs in turn of 4 planes: byte 4 i + p is input 32 p + i. 4 bits: uint8 [rows, half of cols
            rounded up to 256], each 256 inputs as 32 little-endian words: bits 4 p of word i are input 32 p + i. Zeros
            where there is no input. So a word makes operands of the matrix unit without being sorted first.
            Nested: uint8, 32 bytes for each bit of a code for each nest of 256 inputs. First 32 little-endian elements
            of the low_bits(): bits low p of element i are those of input 32 p + i. Then as many elements of the
            high_bits(), if any, alike.
        scale: encodings: [groups, rows] float32, so that neighbouring channels are neighbours; one group where a whole
            channel shares a scale. progressive, microscaled: [1, rows]. Nested: [nests, rows] float16.
        zero: 4 bits with zero points: [groups, rows] uint8; int8 has none: its zero points are taken off the codes, and
            where they do not fit in 8 bits the matrix is affine. Nested affine: what the nest's offset is multiplied
            with, as gamma lies.
        offset: affine: [groups, rows] float32, for the codes as they are here; nested affine: [nests, rows] float16.
        gamma: progressive, microscaled: [groups, rows] uint8. Nested: [groups of whole nests / 8, rows, 8], of eight
            groups behind each other; nested affine uint8, else int8.
    """

    dtype: str
    rows: int
    cols: int
    codes: torch.Tensor
    scale: torch.Tensor | None = None
    zero: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    gamma: torch.Tensor | None = None


def low_bits(e: Encoding) -> int:
    """Bits of a code that lie together: 4, or 2 of codes of 2 and 3; 8 of those that are bytes."""
    return e.bits if e.bits in (2, 4, 8) else 4 if e.bits > 4 else 2


def high_bits(e: Encoding) -> int:
    """Those of a code that lie behind them: 0, 1 or 2."""
    return e.bits - low_bits(e)
