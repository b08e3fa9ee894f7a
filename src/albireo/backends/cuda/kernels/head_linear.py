"""head_linear: out[t, h] = x[t, h] @ block h of weight^T: a matrix of each head for its part of a row.

x: [T, H * K], weight: [H * B, K] of one type, float32, bfloat16 or float16, B being N rounded up to 64 rows, of which
N count; out: [T, H * N], float32 or x's type, rows any distance apart. A program computes up to 32 tokens by 64 outputs
of one head, in one chain over K, 64 at a time. So bits of a row depend on it and on K alone: 16 and 32 tokens are the
same instruction.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.head_product import BLOCK_K, BLOCK_N, head_product, tile_rows
from albireo.graph.program import PANEL


@triton.jit(do_not_specialize=["tokens"])
def head_linear_kernel(
    x,
    weight,
    out,
    tokens,
    x_stride,
    out_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    HEIGHT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    head = tl.program_id(2)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    columns = tl.program_id(1) * BN + tl.arange(0, BN)
    is_row = rows < tokens
    acc = head_product(x, weight, rows, is_row, columns, head, x_stride, K, HEIGHT, BM, BN, BK)
    to = out + rows.to(tl.int64)[:, None] * out_stride + (head * N + columns)[None, :]
    tl.store(to, round_to(acc, out.dtype.element_ty), mask=is_row[:, None] & (columns < N)[None, :])


def head_linear(x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, num_heads: int, n: int) -> None:
    """n: outputs of a head."""
    tokens, rows = len(x), tile_rows(len(x))
    head_linear_kernel[(triton.cdiv(tokens, rows), triton.cdiv(n, BLOCK_N), num_heads)](
        x,
        weight,
        out,
        tokens,
        x.stride(0),
        out.stride(0),
        N=n,
        K=weight.shape[1],
        HEIGHT=-(-n // PANEL) * PANEL,
        BM=rows,
        BN=BLOCK_N,
        BK=BLOCK_K,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    def case(rows: int, n: int, k: int, architectures: tuple[int, ...]) -> AotCase:
        return AotCase(
            f"head_linear.bfloat16.rows{rows}.{k}to{n}",
            head_linear_kernel,
            {"x": "*bf16", "weight": "*bf16", "out": "*bf16", "tokens": "i32", "x_stride": "i32", "out_stride": "i32"},
            {"N": n, "K": k, "HEIGHT": n, "BM": rows, "BN": BLOCK_N, "BK": BLOCK_K},
            num_warps=4,
            aligned=("x", "weight", "out", "x_stride", "out_stride"),
            max_registers=128,
            max_shared=64 << 10,
            words=dict.fromkeys(architectures, ("HMMA", "LDGSTS.E.BYPASS.128")),
            architectures=architectures,
        )

    return [case(16, 512, 128, (80, 90, 100)), case(32, 128, 512, (80, 90, 100))]
