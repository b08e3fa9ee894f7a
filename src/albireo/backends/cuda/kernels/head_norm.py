"""head_norm: out[i, h] = x[i, h] / sqrt(mean(x[i, h]^2) + eps) (* weight), for each of num_heads parts of a row.

x, out: [R, H * D] float32 (out in any compute type), D even; weight: [D] float32, or [H * D]: each head has its own, or
None; centered: of x minus the mean of each part. Rows any distance apart, out may be x. The same bits as inside
qk_norm_rope_kv_write. A program takes some heads of a row; a padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.heads import centered, head_tile, load_heads, normalize, store_heads


@triton.jit
def head_norm_kernel(
    x,
    weight,
    out,
    x_stride,
    out_stride,
    num_heads,
    eps,
    HEAD_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    OF_ALL: tl.constexpr,
    CENTERED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * HEADS
    a, b = load_heads(x + row * x_stride, first, num_heads, HEAD_DIM, HEADS, HALF)
    if CENTERED:
        a, b = centered(a, b, HEAD_DIM, HALF)
    a, b = normalize(a, b, None if OF_ALL else weight, eps, HEAD_DIM, HALF)
    if OF_ALL:
        gain_a, gain_b = load_heads(weight, first, num_heads, HEAD_DIM, HEADS, HALF)
        a, b = a * gain_a, b * gain_b
    store_heads(out + row * out_stride, first, num_heads, a, b, HEAD_DIM, HEADS, HALF)


def head_norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    out: torch.Tensor,
    eps: float,
    num_heads: int,
    is_centered: bool = False,
) -> None:
    head_dim = out.shape[1] // num_heads
    heads, half = head_tile(head_dim, num_heads)
    head_norm_kernel[(out.shape[0], triton.cdiv(num_heads, heads))](
        x,
        weight,
        out,
        x.stride(0),
        out.stride(0),
        num_heads,
        eps,
        HEAD_DIM=head_dim,
        HEADS=heads,
        HALF=half,
        OF_ALL=weight is not None and len(weight) > head_dim,
        CENTERED=is_centered,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {"x": "*fp32", "weight": "*fp32", "out": "*fp32"}
    signature |= {"x_stride": "i32", "out_stride": "i32", "num_heads": "i32", "eps": "fp32"}
    heads, half = head_tile(128, 32)
    return [
        AotCase(
            "head_norm.d128",
            head_norm_kernel,
            signature,
            {"HEAD_DIM": 128, "HEADS": heads, "HALF": half, "OF_ALL": False, "CENTERED": False},
            num_warps=1,
            aligned=("x", "weight", "out", "x_stride", "out_stride"),
            max_registers=80,
            max_shared=0,
            words={90: ("LDG.E.128", "STG.E.128")},
        )
    ]
