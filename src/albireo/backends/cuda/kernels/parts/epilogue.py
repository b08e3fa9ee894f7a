"""What a linear does with a tile of its sums: bias, residual or gated activation, and the type it is kept in.

Used inside the kernels of linears. The order of roundings is csrc/kernels/linear/linear.inl's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.activations import clamped_swiglu, gelu, gelu_tanh, relu, silu
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.row_codes import store_columns
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, store_parts
from albireo.errors import InvariantError

#: Names of graph.program's attr act -> ACT of the kernels.
ACTS = {"none": 0, "silu_mul": 1, "gelu_tanh_mul": 2, "gelu": 3, "gelu_tanh": 4, "relu": 5, "clamped_swiglu": 6}


def act_code(act: str) -> int:
    """Raises: InvariantError for an activation that no kernel has."""
    if act not in ACTS:
        raise InvariantError(f"linear has no activation {act!r}; there are {', '.join(ACTS)}")
    return ACTS[act]


@dataclass(frozen=True, slots=True)
class Finish:
    """What a linear does behind its sums, as launchers of its kernels are told.

    Fields: out: [T, n] of a compute type, rows contiguous inside; or rows of codes. n: outputs of a row. bias: [weight
        rows] float32. residual: [T, n] float32, may be out. act: a code of ACTS. parts_out: where what a norm of out's
        rows is made of is left; None: nowhere.
    """

    out: torch.Tensor
    n: int
    bias: torch.Tensor | None = None
    residual: torch.Tensor | None = None
    act: int = 0
    parts_out: RowParts | None = None

    def turn(self, rows: slice) -> Finish:
        """Of some of the rows."""
        residual = None if self.residual is None else self.residual[rows]
        parts_out = None if self.parts_out is None else self.parts_out.turn(rows)
        return replace(self, out=self.out[rows], residual=residual, parts_out=parts_out)

    def arguments(self) -> dict[str, Any]:
        """What a kernel tells finish(), by name, beside the norm's (row_squares.parts_arguments)."""
        out, bias, residual = self.out, self.bias, self.residual
        return {
            "out": out,
            "bias": out if bias is None else bias,
            "residual": out if residual is None else residual,
            "n": self.n,
            "out_stride": out.stride(0),
            "residual_stride": 0 if residual is None else residual.stride(0),
            "ACT": self.act,
            "HAS_BIAS": bias is not None,
            "HAS_RESIDUAL": residual is not None,
        }


@triton.jit
def finish(
    sums,
    first_token,
    first_row,
    num_tokens,
    n,
    out,
    out_stride,
    bias,
    residual,
    residual_stride,
    ACT: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    gain=None,
    scaled=None,
    scaled_stride=0,
    squares=None,
    squares_stride=0,
    out_row=None,
):
    """Keep a tile of sums [tokens, weight rows]: rows below num_tokens, outputs below n.

    bias: float32, one a weight row. residual: float32, may be out. With ACT 1, 2 or 6 32 gate rows and 32 up rows take
    turns, and n counts the outputs, half as many as rows. out: numbers, or rows of e4m3 (row_codes.py), for
    which the tile has whole groups of outputs. With gain what a norm is made of is kept, too: see row_squares.py.
    out_row: [tokens] the row of out and residual that is each token's, where that is not its number; of numbers alone.
    """
    NT: tl.constexpr = sums.shape[0]
    NR: tl.constexpr = sums.shape[1]
    token = first_token + tl.arange(0, NT)
    GATED: tl.constexpr = ACT == 1 or ACT == 2 or ACT == 6
    if HAS_BIAS:
        row = first_row + tl.arange(0, NR)
        rows = (n + 31) // 32 * 64 if GATED else n
        sums += tl.load(bias + row, mask=row < rows, other=0.0)[None, :]
    if GATED:
        halves = tl.permute(tl.reshape(sums, (NT, NR // 64, 2, 32)), (0, 1, 3, 2))
        gate, up = tl.split(halves)
        if ACT == 6:
            sums = tl.reshape(clamped_swiglu(gate, up), (NT, NR // 2))
        else:
            sums = tl.reshape((silu(gate) if ACT == 1 else gelu_tanh(gate)) * up, (NT, NR // 2))
        column_0 = first_row // 2
        column = column_0 + tl.arange(0, NR // 2)
    else:
        if ACT == 3:
            sums = gelu(sums)
        if ACT == 4:
            sums = gelu_tanh(sums)
        if ACT == 5:
            sums = relu(sums)
        column_0 = first_row
        column = first_row + tl.arange(0, NR)
    keep = (token < num_tokens)[:, None] & (column < n)[None, :]
    row_of = (token if out_row is None else out_row).to(tl.int64)
    if HAS_RESIDUAL:
        sums += tl.load(residual + row_of[:, None] * residual_stride + column[None, :], mask=keep, other=0.0)
    if out.dtype.element_ty == tl.float8e4nv:
        tl.static_assert(out_row is None)
        store_columns(out, token, num_tokens, out_stride, column_0, sums, n)
    else:
        at = row_of[:, None] * out_stride + column[None, :]
        tl.store(out + at, round_to(sums, out.dtype.element_ty), mask=keep)
    if gain is not None:
        store_parts(sums, token, num_tokens, first_row, n, gain, scaled, scaled_stride, squares, squares_stride)
