"""rope: rotates the pairs of channels (i, i + D / 2) of each head of a row by the row's position.

x, out: [T, H * D] float32 (out in any compute type), D even; rows any distance apart, out may be x. table: [positions,
2, D / 2] float32, cosines then sines; positions: [T] int32. The same bits as inside qk_norm_rope_kv_write. A program
takes some heads of a row; a padding row has position 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.heads import head_tile, load_heads, rotate, store_heads


@triton.jit
def rope_kernel(
    x,
    table,
    positions,
    out,
    x_stride,
    out_stride,
    num_heads,
    HEAD_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * HEADS
    a, b = load_heads(x + row * x_stride, first, num_heads, HEAD_DIM, HEADS, HALF)
    a, b = rotate(a, b, table, tl.load(positions + row), HEAD_DIM, HALF)
    store_heads(out + row * out_stride, first, num_heads, a, b, HEAD_DIM, HEADS, HALF)


def rope(
    x: torch.Tensor, table: torch.Tensor, positions: torch.Tensor, out: torch.Tensor, num_heads: int, head_dim: int
) -> None:
    heads, half = head_tile(head_dim, num_heads)
    rope_kernel[(out.shape[0], triton.cdiv(num_heads, heads))](
        x,
        table,
        positions,
        out,
        x.stride(0),
        out.stride(0),
        num_heads,
        HEAD_DIM=head_dim,
        HEADS=heads,
        HALF=half,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {"x": "*fp32", "table": "*fp32", "positions": "*i32", "out": "*fp32"}
    signature |= {"x_stride": "i32", "out_stride": "i32", "num_heads": "i32"}
    heads, half = head_tile(128, 32)
    return [
        AotCase(
            "rope.d128",
            rope_kernel,
            signature,
            {"HEAD_DIM": 128, "HEADS": heads, "HALF": half},
            num_warps=1,
            aligned=("x", "table", "out", "x_stride", "out_stride"),
            max_registers=80,
            max_shared=0,
            words={90: ("LDG.E.128", "STG.E.128")},
        )
    ]
