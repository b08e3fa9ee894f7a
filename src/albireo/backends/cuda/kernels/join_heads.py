"""join_heads: out[t, h] = x[t, h], then y[t, h]: the parts of two rows' heads side by side, rounded.

x: [T, H * K], y: [T, H * N] float32; out: [T, H * (K + N)] of any type, columns contiguous, rows any distance apart. A
program copies a head of a token.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import round_to


@triton.jit
def join_heads_kernel(
    x, y, out, x_stride, y_stride, out_stride, K: tl.constexpr, N: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    to = out + row * out_stride + head * (K + N)
    at = tl.arange(0, BLOCK_K)
    first = tl.load(x + row * x_stride + head * K + at, mask=at < K, other=0.0)
    tl.store(to + at, round_to(first, out.dtype.element_ty), mask=at < K)
    at = tl.arange(0, BLOCK_N)
    second = tl.load(y + row * y_stride + head * N + at, mask=at < N, other=0.0)
    tl.store(to + K + at, round_to(second, out.dtype.element_ty), mask=at < N)


def join_heads(x: torch.Tensor, y: torch.Tensor, out: torch.Tensor, num_heads: int) -> None:
    """x, y: as wide as all heads' parts together."""
    k, n = x.shape[1] // num_heads, y.shape[1] // num_heads
    join_heads_kernel[(len(x), num_heads)](
        x,
        y,
        out,
        x.stride(0),
        y.stride(0),
        out.stride(0),
        K=k,
        N=n,
        BLOCK_K=triton.next_power_of_2(k),
        BLOCK_N=triton.next_power_of_2(n),
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {"x": "*fp32", "y": "*fp32", "out": "*bf16"}
    signature |= dict.fromkeys(("x_stride", "y_stride", "out_stride"), "i32")
    return [
        AotCase(
            "join_heads.bfloat16",
            join_heads_kernel,
            signature,
            {"K": 512, "N": 64, "BLOCK_K": 512, "BLOCK_N": 64},
            num_warps=1,
            aligned=tuple(signature),
            max_registers=64,
            max_shared=0,
            words={90: ("LDG.E.128", "STG.E.128")},
        )
    ]
