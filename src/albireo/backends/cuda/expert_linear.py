"""expert_linear: each pair of a token and an expert times that expert's matrix, on a GPU.

Called by the executor for the family expert_linear. Does not know programs.
"""

from __future__ import annotations

import torch

from albireo.backends.cuda import expert_plan
from albireo.backends.cuda.chip import chip_of
from albireo.backends.cuda.expert_list import ExpertList
from albireo.backends.cuda.kernels.moe_grouped_matmul import moe_grouped_matmul
from albireo.backends.cuda.kernels.moe_groups import moe_groups
from albireo.backends.cuda.kernels.parts.epilogue import act_code
from albireo.backends.cuda.kernels.parts.row_squares import RowSquares
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS
from albireo.backends.cuda.kernels.row_factors import row_factors
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.cuda.tokens import e4m3_rows, token_rows
from albireo.backends.cuda.workspace import workspace_bytes


def workspace_size(
    num_experts: int, top_k: int, dtype: str, rows: int, cols: int, device: torch.device, repeats: bool = False
) -> int:
    """Bytes of the workspace, for any number of tokens; 0: none.

    Args: rows: of an expert's matrix. repeats: see ExpertList.
    """
    chip = chip_of(device)
    return workspace_bytes(expert_plan.num_part_elements(num_experts, top_k, rows, cols, dtype, chip, repeats))


def expert_linear(
    x: torch.Tensor,
    weight: DeviceMatrix,
    out: torch.Tensor,
    lists: ExpertList,
    act: str = "none",
    n: int | None = None,
    workspace: torch.Tensor | None = None,
    squares: RowSquares | None = None,
    bias: torch.Tensor | None = None,
) -> None:
    """A pair's row has the bits that linear() gives its row of x and its expert's matrix.

    Args:
        x: [T, K], or [T * top_k, K] a row of each pair; of the weight's type as in linear().
        weight: [experts * N, K]. out: [T * top_k, n]; rows of padding tokens' pairs stay as they are.
        lists: as moe_route left it. act, n, workspace, squares: as in linear(). bias: [experts
            * N] float32, as weight's rows.
    """
    n = out.shape[1] if n is None else n
    x_scales = factors = None
    if x.dtype == torch.float8_e4m3fn:
        x, x_scales = e4m3_rows(x, weight.cols)
    elif x.dtype == torch.uint8 and weight.dtype != "int8":
        moe_groups(x, weight, out, n, lists, act_code(act), bias)
        return
    elif x.dtype == torch.uint8:
        rows = token_rows(x, weight.cols)
        x, factors = rows.codes, rows.floats[:, rows.first]
    if squares is not None and len(x) > FEW_TOKENS:
        row_factors(squares, squares.factors)
        factors, squares = squares.factors, None
    moe_grouped_matmul(
        x, weight, out, n, lists, act_code(act), x_scales, factors, workspace, squares=squares, bias=bias
    )
