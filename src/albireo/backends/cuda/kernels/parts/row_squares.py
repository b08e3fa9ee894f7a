"""Norms inside linears: sums of squares of a row where it is made, and what a row is divided by where it is read.

Used inside the kernels of linears; RowParts and RowSquares are what their launchers are told, and what these tell
them. Sums are trees that are spelled out, so no layout of a tile has a say in their bits. Does not know weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.row_codes import store_columns
from albireo.graph.op_numbers import SQUARES

_SQUARES = tl.constexpr(SQUARES)


@dataclass(frozen=True, slots=True)
class RowSquares:
    """Of rows that a linear reads, times a norm's weight but not yet divided.

    Fields: squares: [T, num_squares(width)] float32. factors: [at least T] float32 of scratch, for many tokens.
    """

    squares: torch.Tensor
    factors: torch.Tensor
    eps: float
    width: int

    @property
    def levels(self) -> int:
        """Of the tree that a row's sums are added in."""
        return int(self.squares.shape[1] - 1).bit_length()


@dataclass(frozen=True, slots=True)
class RowParts:
    """Where a linear leaves what a norm of its rows is made of.

    Fields: gain: [n] float32, the norm's weight. scaled: [T, n] bfloat16, or rows of e4m3 (../../tokens.py). squares:
        [T, num_squares(n)] float32.
    """

    gain: torch.Tensor
    scaled: torch.Tensor
    squares: torch.Tensor

    def turn(self, rows: slice) -> RowParts:
        """Of some of the rows."""
        return RowParts(self.gain, self.scaled[rows], self.squares[rows])


def squares_arguments(squares: RowSquares | None) -> dict[str, Any]:
    """What a kernel tells row_factor(), by name; where rows are not divided row_squares is None."""
    if squares is None:
        numbers = {"row_squares_stride": 0, "num_row_squares": 0, "norm_width": 1, "norm_eps": 0.0}
        return {"row_squares": None, **numbers, "NORM_LEVELS": 0}
    return {
        "row_squares": squares.squares,
        "row_squares_stride": squares.squares.stride(0),
        "num_row_squares": squares.squares.shape[1],
        "norm_width": squares.width,
        "norm_eps": squares.eps,
        "NORM_LEVELS": squares.levels,
    }


def parts_arguments(parts_out: RowParts | None) -> dict[str, Any]:
    """What a kernel tells store_parts(), by name; where no norm is made of its rows gain is None."""
    if parts_out is None:
        return {"gain": None, "scaled": None, "squares": None, "scaled_stride": 0, "squares_stride": 0}
    return {
        "gain": parts_out.gain,
        "scaled": parts_out.scaled,
        "squares": parts_out.squares,
        "scaled_stride": parts_out.scaled.stride(0),
        "squares_stride": parts_out.squares.stride(0),
    }


@triton.jit
def tree_sum(x, LEVELS: tl.constexpr):
    """[M, 2^LEVELS] -> [M]: neighbours are added, then their sums, and so on."""
    for _ in tl.static_range(LEVELS):
        a, b = tl.split(tl.reshape(x, (x.shape[0], x.shape[1] // 2, 2)))
        x = a + b
    return tl.reshape(x, (x.shape[0],))


@triton.jit
def row_factor(squares, token, stride, count, eps, width, LEVELS: tl.constexpr):
    """One over the root of the mean square of each of the tokens."""
    at = tl.arange(0, 1 << LEVELS)
    parts = tl.load(squares + token.to(tl.int64)[:, None] * stride + at[None, :], mask=(at < count)[None, :], other=0.0)
    return tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(tree_sum(parts, LEVELS), width * 1.0) + eps))


@triton.jit
def store_parts(sums, token, num_tokens, first_column, n, gain, scaled, scaled_stride, squares, squares_stride):
    """sums: [tokens, columns] of finished rows, whole multiples of SQUARES of them, for e4m3 of 128."""
    NT: tl.constexpr = sums.shape[0]
    PARTS: tl.constexpr = sums.shape[1] // _SQUARES
    column = first_column + tl.arange(0, sums.shape[1])
    is_token, is_column = token < num_tokens, column < n
    by = tl.load(gain + column, mask=is_column, other=0.0)
    if scaled.dtype.element_ty == tl.float8e4nv:
        store_columns(scaled, token, num_tokens, scaled_stride, first_column, sums * by[None, :], n)
    else:
        at = scaled + token.to(tl.int64)[:, None] * scaled_stride + column[None, :]
        tl.store(at, round_to(sums * by[None, :], scaled.dtype.element_ty), mask=is_token[:, None] & is_column[None, :])
    kept = tl.where(is_column[None, :], sums, 0.0)
    found = tl.reshape(tree_sum(tl.reshape(kept * kept, (NT * PARTS, _SQUARES)), 6), (NT, PARTS))
    part = first_column // _SQUARES + tl.arange(0, PARTS)
    tl.store(
        squares + token.to(tl.int64)[:, None] * squares_stride + part[None, :],
        found,
        mask=is_token[:, None] & (part * _SQUARES < n)[None, :],
    )


@triton.jit
def store_parts_of_piece(values, n, gain, scaled, scaled_stride, squares, squares_stride):
    """store_parts() of [columns] of a row, by the program of that row (axis 0) and of these columns (axis 1)."""
    BLOCK: tl.constexpr = values.shape[0]
    token = tl.program_id(0) + tl.arange(0, 1)
    store_parts(
        tl.reshape(values, (1, BLOCK)), token, tl.num_programs(0), tl.program_id(1) * BLOCK, n, gain, scaled,
        scaled_stride, squares, squares_stride,
    )  # fmt: skip
