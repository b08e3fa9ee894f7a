"""Grid: the numbers that each group of a matrix may become, chosen before any of its weights is rounded.

Made by search.py and progressive.py, used by them and by gptq.py, which rounds column by column. Does not know inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.encodings import Encoding
from albireo.quantization.encoded import F32, U8, Encoded, e4m3_codes, e4m3_values

#: Significant bits of a scale that a checkpoint of this type can hold exactly, with a product by 15 for progressive.
SCALE_BITS = {"bfloat16": 8, "float16": 11, "float32": 16}


@dataclass(frozen=True, slots=True)
class Grid:
    """Steps and zeros of the groups of a matrix [N, K].

    Fields:
        scale: [N, groups] the step: of kind progressive gamma * base.
        zero: [N, groups] the code of zero; 0 for kind float.
        low, high: [N, groups] first and last code allowed.
        gamma, base: of kind progressive, [N, groups] and [N, 1]; else None.
    """

    encoding: Encoding
    scale: F32
    zero: F32
    low: F32
    high: F32
    gamma: F32 | None = None
    base: F32 | None = None

    def nearest(self, column: F32, group: int) -> tuple[F32, F32]:
        """Codes of the weights [N] of one input, which is in this group, and the numbers they stand for."""
        scale = self.scale[:, group]
        x = column / np.where(scale > 0, scale, np.float32(np.inf))
        if self.encoding.kind == "float":
            found = e4m3_codes(x)
            return found.astype(np.float32), np.asarray(e4m3_values()[found] * scale, np.float32)
        zero = self.zero[:, group]
        codes: F32 = np.clip(np.rint(x) + zero, self.low[:, group], self.high[:, group]).astype(np.float32)
        return codes, (codes - zero) * scale

    def encode(self, weight: F32) -> Encoded:
        """[N, K] rounded to the grid."""
        groups, k = to_groups(weight, self.encoding), weight.shape[1]
        codes = codes_of(groups, self)
        return self.with_codes(codes.astype(np.uint8).reshape(len(weight), -1)[:, :k])

    def with_codes(self, codes: U8) -> Encoded:
        """[N, K] codes of this grid, as a matrix."""
        codes = np.ascontiguousarray(codes, np.uint8)
        if self.encoding.kind == "float":
            return Encoded(self.encoding, codes, self.scale)
        zero = self.zero.astype(np.uint8)
        if self.gamma is None:
            return Encoded(self.encoding, codes, self.scale, zero=zero)
        assert self.base is not None
        return Encoded(self.encoding, codes, self.base, zero=zero, gamma=self.gamma.astype(np.uint8))


def to_groups(weight: F32, encoding: Encoding) -> F32:
    """[N, K] -> [N, groups, size], padded with zeros at the end of each row."""
    n, k = weight.shape
    size = k if encoding.group is None else encoding.group
    count = encoding.num_groups(k)
    if count * size == k:
        return weight.reshape(n, count, size)
    padded = np.zeros((n, count * size), np.float32)
    padded[:, :k] = weight
    return padded.reshape(n, count, size)


def codes_of(groups: F32, grid: Grid) -> F32:
    """[N, groups, size] the nearest allowed codes."""
    x = groups / np.where(grid.scale > 0, grid.scale, np.float32(np.inf))[:, :, None]
    if grid.encoding.kind == "float":
        return e4m3_codes(x).astype(np.float32)
    codes = np.rint(x) + grid.zero[:, :, None]
    return np.asarray(np.clip(codes, grid.low[:, :, None], grid.high[:, :, None]), np.float32)


def errors_of(groups: F32, grid: Grid) -> F32:
    """[N, groups, size] what rounding to the grid takes away from each weight."""
    codes = codes_of(groups, grid)
    if grid.encoding.kind == "float":
        return np.asarray(groups - e4m3_values()[codes.astype(np.uint8)] * grid.scale[:, :, None], np.float32)
    return np.asarray(groups - (codes - grid.zero[:, :, None]) * grid.scale[:, :, None], np.float32)


def significant(x: NDArray[np.floating[Any]], bits: int) -> F32:
    """The nearest numbers of so many significant bits, ties to even; never 0 for a number that is not."""
    spare = 24 - bits
    raw = np.ascontiguousarray(x, np.float32).view(np.uint32)
    half = np.uint32((1 << (spare - 1)) - 1)
    kept = np.uint32(~((1 << spare) - 1) & 0xFFFFFFFF)
    rounded: NDArray[np.uint32] = (raw + half + ((raw >> np.uint32(spare)) & np.uint32(1))) & kept
    return rounded.view(np.float32)
