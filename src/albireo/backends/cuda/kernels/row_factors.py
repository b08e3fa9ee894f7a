"""row_factors: what each row of a norm inside linears is divided by, for steps of many tokens.

out[t] = 1 / sqrt(sum(squares[t]) / width + eps); squares: [T, num_squares(width)] float32, out: [T] float32. The same
numbers as matmul_smallm finds by itself (parts/row_squares.py), where tiles of many tokens have no registers for it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.row_squares import RowSquares, row_factor

_TOKENS = 16


@triton.jit(do_not_specialize=["num_tokens"])
def row_factors_kernel(squares, out, num_tokens, stride, count, width, eps, LEVELS: tl.constexpr, TOKENS: tl.constexpr):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    factor = row_factor(squares, tl.minimum(token, num_tokens - 1), stride, count, eps, width, LEVELS)
    tl.store(out + token, factor, mask=token < num_tokens)


def row_factors(rows: RowSquares, out: torch.Tensor) -> None:
    num_tokens, count = rows.squares.shape
    row_factors_kernel[(triton.cdiv(num_tokens, _TOKENS),)](
        rows.squares,
        out,
        num_tokens,
        rows.squares.stride(0),
        count,
        rows.width,
        rows.eps,
        LEVELS=rows.levels,
        TOKENS=_TOKENS,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    numbers = ("num_tokens", "stride", "count", "width")
    return [
        AotCase(
            "row_factors",
            row_factors_kernel,
            {"squares": "*fp32", "out": "*fp32", "eps": "fp32"} | dict.fromkeys(numbers, "i32"),
            {"LEVELS": 6, "TOKENS": _TOKENS},
            aligned=("squares", "out", "stride"),
            max_registers=64,
            max_shared=8 << 10,
            words={90: ("LDG.E",)},
        )
    ]
