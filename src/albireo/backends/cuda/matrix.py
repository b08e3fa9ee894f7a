"""DeviceMatrix: a weight matrix in device memory, as kernels read it.

Made by constants.py from a PackedConstant's bytes, read by linears and embeddings. Rows are output channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class DeviceMatrix:
    """A matrix [rows, cols] of a compute dtype, or of an encoding (albireo/encodings.py).

    Fields:
        dtype: float32, float16, bfloat16, or the name of an encoding.
        codes: [rows, cols] in a compute dtype; int8: the signed codes; fp8: float8_e4m3fn; 4 bits: [rows, pairs of
            groups * group] of uint8, input i of an even group in the low half of byte i of a pair, input i of the odd
            group behind it in the high half, zeros where there is none: what is multiplied need not be sorted first.
        scale: encodings: [groups, rows] float32, so that neighbouring channels are neighbours; one group where a whole
            channel shares a scale. progressive: [1, rows].
        zero: 4 bits: [groups, rows] uint8. int8 has none: its zero points are taken off the codes, and where they do
            not fit in 8 bits the matrix is affine.
        offset: affine: [groups, rows] float32, for the codes as they are here.
        gamma: progressive: [groups, rows] uint8.
    """

    dtype: str
    rows: int
    cols: int
    codes: torch.Tensor
    scale: torch.Tensor | None = None
    zero: torch.Tensor | None = None
    offset: torch.Tensor | None = None
    gamma: torch.Tensor | None = None
