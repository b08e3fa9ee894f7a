"""library_linear: a linear of plain numbers for many tokens whose product is left to torch, and so to cuBLAS.

For who prefers speed to bits that never move: cuBLAS picks an order of additions by the number of tokens. Whoever binds
calls decides between this and linear(); nothing else switches.
"""

from __future__ import annotations

import torch

from albireo.backends.cuda.kernels.gated import gated
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.dtypes import COMPUTE_DTYPES
from albireo.errors import InvariantError, UnsupportedModel


def library_linear(
    x: torch.Tensor,
    weight: DeviceMatrix,
    out: torch.Tensor,
    sums: torch.Tensor,
    bias: torch.Tensor | None = None,
    residual: torch.Tensor | None = None,
    act: str = "none",
) -> None:
    """As linear(), but for the order of additions.

    Args: sums: [tokens, weight.rows at least] float32, scratch for so many tokens at a time.
    Raises: UnsupportedModel for a weight in few bits.
    """
    if weight.dtype not in COMPUTE_DTYPES:
        raise UnsupportedModel(f"cuBLAS multiplies no {weight.dtype}; use linear()")
    if sums.shape[1] < weight.rows or not len(sums):
        raise InvariantError(f"sums are {tuple(sums.shape)}; {weight.rows} columns are needed")
    for start in range(0, len(x), len(sums)):
        rows = slice(start, min(start + len(sums), len(x)))
        part = sums[: rows.stop - start, : weight.rows]
        _product(x[rows], weight.codes, part)
        if bias is not None:
            part += bias
        if act != "none":
            gated(part, out[rows], act, out.shape[1])
        elif residual is not None:
            out[rows].copy_(part[:, : out.shape[1]].add_(residual[rows]))
        else:
            out[rows].copy_(part[:, : out.shape[1]])


def _product(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor) -> None:
    """out float32; torch adds 16-bit numbers to float32 on a GPU only."""
    if x.is_cuda and x.dtype != torch.float32:
        torch.ops.aten.mm.dtype_out(x, weight.t(), torch.float32, out=out)
    else:
        torch.mm(x.float(), weight.float().t(), out=out)
