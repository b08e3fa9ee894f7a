"""linear: out = act(x @ weight^T + bias) + residual on a GPU; picks the kernel by the weight's type and the rows.

Called by the executor for the family linear, and for the products inside head_top and qkv_rope_kv. Does not know
programs.
"""

from __future__ import annotations

import torch

from albireo.backends.cuda import matmul_plan
from albireo.backends.cuda.kernels import matmul as many
from albireo.backends.cuda.kernels import matmul_e4m3_smallm as few_e4m3
from albireo.backends.cuda.kernels import matmul_smallm as few
from albireo.backends.cuda.kernels.adapter_add import LowRows, adapter_add
from albireo.backends.cuda.kernels.add_parts import add_parts
from albireo.backends.cuda.kernels.matmul_e4m3 import matmul_e4m3
from albireo.backends.cuda.kernels.matmul_groups import matmul_groups
from albireo.backends.cuda.kernels.matmul_int8 import matmul_int8
from albireo.backends.cuda.kernels.parts.epilogue import Finish, act_code
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, RowSquares
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS
from albireo.backends.cuda.kernels.parts.weight_operands import SCALES
from albireo.backends.cuda.kernels.row_factors import row_factors
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.sum_parts import TILE_ROWS
from albireo.backends.cuda.turns import GatherSpace
from albireo.backends.cuda.workspace import MAX_COUNTERS, workspace_bytes
from albireo.dtypes import COMPUTE_DTYPES
from albireo.encodings import encoding
from albireo.errors import InvariantError


def workspace_size(dtype: str, rows: int, cols: int, to_codes: bool = False) -> int:
    """Bytes of the workspace that linears with such a weight need, whatever the number of tokens; 0: none.

    to_codes: whether what they write is rows of e4m3.
    """
    if dtype in (*COMPUTE_DTYPES, *SCALES):
        modules = (few, matmul_plan, *((few_e4m3,) if to_codes else ()))
        return workspace_bytes(max(module.num_part_elements(rows, cols, dtype) for module in modules))
    return 0


def linear(
    x: torch.Tensor,
    weight: DeviceMatrix,
    out: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    act: str = "none",
    n: int | None = None,
    workspace: torch.Tensor | None = None,
    squares: RowSquares | None = None,
    parts_out: RowParts | None = None,
    added: LowRows | None = None,
) -> None:
    """A row's bits depend on that row, the weight and the row's adapter only.

    Args:
        x: [T, K] of the weight's type; where it is encoded, rows of encodings.Encoding.activation, or bfloat16 beside
            4-bit codes with zero points (W4A16), or rows of e4m3 (tokens.py) beside e4m3 weights (W8A8).
        out: [T, n] float32, bfloat16 or float16, rows contiguous inside, and so are x and residual; or, of rows of e4m3
            and with an activation, rows of e4m3.
        bias: [weight.rows] float32. residual: [T, n] float32, may be out.
        act: one of epilogue.ACTS; with a gated one (silu_mul, gelu_tanh_mul, clamped_swiglu) gate and up rows take
            turns in the weight, as in graph.program.GATE_UP_INTERLEAVE.
        n: outputs of a row; None: all of out's.
        squares, parts_out: norms inside linears (parts/row_squares.py), where x is bfloat16 or rows of e4m3; else None.
        added: what adapters add to sums; None: nothing to any. Rows that have none get the bits that they get then.
        workspace: uint8, workspace_size() bytes at least, zeroed once; linears of one stream share it.
    """
    n = out.shape[1] if n is None else n
    end = Finish(out, n, bias, residual, act_code(act), parts_out)
    if added is None:
        _product(x, weight, end, workspace, squares)
    else:
        _with_adapters(x, weight, end, workspace, squares, added)


def linear_of_leaves(
    x: torch.Tensor,
    weight: DeviceMatrix,
    out: torch.Tensor,
    chunks: int,
    space: GatherSpace,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    parts_out: RowParts | None = None,
    added: LowRows | None = None,
) -> None:
    """The same of a matrix of numbers, its sums a binary tree of chunks equal leaves, each a linear by itself.

    So whoever has a half or a quarter of the inputs, and as many leaves, has the bits of a branch. What adapters add is
    made leaf by leaf, too. Args: as linear(); workspace: of as many leaves. Raises: InvariantError where inputs do not
    divide.
    """
    if weight.cols % chunks:
        raise InvariantError(f"{weight.cols} inputs are no {chunks} equal leaves")
    k = weight.cols // chunks
    columns = [slice(i * k, (i + 1) * k) for i in range(chunks)]
    leaves = [DeviceMatrix(weight.dtype, weight.rows, k, weight.codes[:, at]) for at in columns]
    is_one_launch = chunks * -(-weight.rows // TILE_ROWS) <= MAX_COUNTERS
    for rows, sums in space.turns(chunks, len(x), weight.rows):
        if len(sums[0]) <= FEW_TOKENS and is_one_launch:
            end = Finish(sums.view(-1, weight.rows), weight.rows)
            few.matmul_smallm(x[rows], weight, end, workspace, leaves=chunks)
        else:
            for at, leaf, total in zip(columns, leaves, sums, strict=True):
                _product(x[rows, at], leaf, Finish(total, weight.rows), workspace)
        if added is not None:
            first = Finish(sums[0], weight.rows)
            adapter_add(sums[0], added.turn(rows), first, fuses=weight.dtype == "float32", leaves=chunks)
        base = None if residual is None else residual[rows]
        add_parts(sums, out[rows], bias, base, None if parts_out is None else parts_out.turn(rows))


def _with_adapters(
    x: torch.Tensor,
    weight: DeviceMatrix,
    end: Finish,
    workspace: torch.Tensor | None,
    squares: RowSquares | None,
    added: LowRows,
) -> None:
    """The linear gives its sums; another launch adds to them, and does what comes behind. Many rows take turns."""
    if squares is not None:
        row_factors(squares, squares.factors)
    turn = min(len(x), len(added.space) // weight.rows)
    for first in range(0, len(x), turn):
        rows = slice(first, min(first + turn, len(x)))
        count = rows.stop - first
        sums = added.space[: count * weight.rows].view(count, weight.rows)
        _product(x[rows], weight, Finish(sums, weight.rows), workspace)
        factors = None if squares is None else squares.factors[rows]
        adapter_add(sums, added.turn(rows), end.turn(rows), factors, fuses=weight.dtype == "float32")


def _product(
    x: torch.Tensor,
    weight: DeviceMatrix,
    end: Finish,
    workspace: torch.Tensor | None,
    squares: RowSquares | None = None,
) -> None:
    if weight.dtype not in (*COMPUTE_DTYPES, *SCALES) or x.dtype == torch.uint8:
        _integers(x, weight, end)
        return
    is_e4m3 = x.dtype == torch.float8_e4m3fn
    if len(x) <= FEW_TOKENS:
        product = few_e4m3.matmul_e4m3_smallm if is_e4m3 else few.matmul_smallm
        product(x, weight, end, workspace, squares)
        return
    factors = None
    if squares is not None:
        row_factors(squares, squares.factors)
        factors = squares.factors
    of_many = matmul_e4m3 if is_e4m3 else many.matmul
    of_many(x, weight, end, factors, workspace=workspace)


def _integers(x: torch.Tensor, weight: DeviceMatrix, end: Finish) -> None:
    if encoding(weight.dtype).group is not None:
        matmul_groups(x, weight, end)
    elif weight.scale is not None:
        matmul_int8(x, weight.codes, weight.scale, end)
