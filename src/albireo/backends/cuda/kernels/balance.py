"""balance: matrices of n rows and columns, a row of x each, such that rows and columns add up to one: the softmax of
each column, plus eps, each row divided by its sum + eps; and rounds - 1 times columns, then rows, likewise.

x, out: [T, n * n] float32, rows any distance apart, columns contiguous; out may be x. A program has some rows, each in
registers: made for n of a few. Their bits depend on the row alone; a padding row is like others. Source: Sinkhorn and
Knopp 1967; Xie et al. 2026, Manifold-Constrained Hyper-Connections.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.balancing import LEAST, balanced

#: Rows of a program.
_ROWS = 8


@triton.jit
def balance_kernel(
    x, out, x_stride, out_stride, num_rows, eps,
    ROUNDS: tl.constexpr, SIZE: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    i = tl.arange(0, BLOCK)
    is_number = ((i < SIZE)[None, :, None] & (i < SIZE)[None, None, :]) & (row < num_rows)[:, None, None]
    place = i[None, :, None] * SIZE + i[None, None, :]
    of_row = row.to(tl.int64)[:, None, None]
    m = tl.load(x + of_row * x_stride + place, mask=is_number, other=LEAST)
    m = balanced(m, is_number, eps, ROUNDS)
    tl.store(out + of_row * out_stride + place, m, mask=is_number)


def balance(x: torch.Tensor, out: torch.Tensor, rounds: int, eps: float) -> None:
    size = math.isqrt(x.shape[1])
    balance_kernel[(triton.cdiv(len(x), _ROWS),)](
        x,
        out,
        x.stride(0),
        out.stride(0),
        len(x),
        eps,
        ROUNDS=rounds,
        SIZE=size,
        BLOCK=triton.next_power_of_2(size),
        ROWS=_ROWS,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = ("x_stride", "out_stride")
    return [
        AotCase(
            "balance.4",
            balance_kernel,
            {"x": "*fp32", "out": "*fp32", **dict.fromkeys((*strides, "num_rows"), "i32"), "eps": "fp32"},
            {"ROUNDS": 20, "SIZE": 4, "BLOCK": 4, "ROWS": _ROWS},
            num_warps=1,
            aligned=("x", "out", *strides),
            max_registers=48,
            max_shared=1 << 10,
        )
    ]
