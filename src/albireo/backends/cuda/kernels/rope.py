"""rope: rotates the pairs of channels (i, i + D / 2), or (2i, 2i + 1), of each head of a row by the row's position,
where eps is given of heads that are normed before; then, where slope and start are, multiplies each head h by slope[h]
* ln(far + ahead) + start[h].

x, out: [T, H * D] float32 (out in any compute type), D even; rows any distance apart, out may be x. table: [positions,
2, D / 2] float32, cosines then sines; positions: [T] int32. weight: [D] float32 of the norm, or None. slope, start: [H]
float32 or None; far: [T] int32, ahead at least 1. The same bits as of head_norm, and as inside qk_norm_rope_kv_write. A
program takes some heads of a row; a padding row has position 0. Source of the numbers of heads: Nakanishi 2025,
Scalable-Softmax.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.heads import (
    head_tile,
    load_heads,
    load_pairs,
    normalize,
    normalize_pairs,
    rotate,
    store_heads,
    store_pairs,
)


@triton.jit
def rope_kernel(
    x,
    table,
    positions,
    out,
    x_stride,
    out_stride,
    num_heads,
    slope,
    start,
    far,
    ahead,
    weight,
    eps,
    HEAD_DIM: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    SIDE_BY_SIDE: tl.constexpr,
    NORMED: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    first = tl.program_id(1) * HEADS
    if SIDE_BY_SIDE:
        a, b = load_pairs(x + row * x_stride, first, num_heads, HEAD_DIM, HEADS, HALF)
        if NORMED:
            a, b = normalize_pairs(a, b, weight, eps, HEAD_DIM, HALF)
    else:
        a, b = load_heads(x + row * x_stride, first, num_heads, HEAD_DIM, HEADS, HALF)
        if NORMED:
            a, b = normalize(a, b, weight, eps, HEAD_DIM, HALF)
    a, b = rotate(a, b, table, tl.load(positions + row), HEAD_DIM, HALF)
    if slope is not None:
        head = first + tl.arange(0, HEADS)
        by = tl.log((tl.load(far + row) + ahead).to(tl.float32))
        by = by * tl.load(slope + head, mask=head < num_heads, other=0.0)
        by += tl.load(start + head, mask=head < num_heads, other=0.0)
        a, b = a * by[:, None], b * by[:, None]
    if SIDE_BY_SIDE:
        store_pairs(out + row * out_stride, first, num_heads, a, b, HEAD_DIM, HEADS, HALF)
    else:
        store_heads(out + row * out_stride, first, num_heads, a, b, HEAD_DIM, HEADS, HALF)


@dataclass(frozen=True, slots=True)
class Growing:
    """What heads are multiplied by: slope, start: [H] float32; far: [T] int32; ahead: at least 1."""

    slope: torch.Tensor
    start: torch.Tensor
    far: torch.Tensor
    ahead: int


def rope(
    x: torch.Tensor,
    table: torch.Tensor,
    positions: torch.Tensor,
    out: torch.Tensor,
    num_heads: int,
    head_dim: int,
    side_by_side: bool = False,
    growing: Growing | None = None,
    weight: torch.Tensor | None = None,
    eps: float | None = None,
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
        *((None, None, None, 0) if growing is None else (growing.slope, growing.start, growing.far, growing.ahead)),
        weight=weight,
        eps=eps or 0.0,
        HEAD_DIM=head_dim,
        HEADS=heads,
        HALF=half,
        SIDE_BY_SIDE=side_by_side,
        NORMED=eps is not None,
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {"x": "*fp32", "table": "*fp32", "positions": "*i32", "out": "*fp32"}
    signature |= {"x_stride": "i32", "out_stride": "i32", "num_heads": "i32", "ahead": "i32", "eps": "fp32"}
    growing = {"slope": "*fp32", "start": "*fp32", "far": "*i32"}

    def case(name: str, head_dim: int, more: dict[str, str], architectures: tuple[int, ...], pairs: bool) -> AotCase:
        heads, half = head_tile(head_dim, 32)
        stored = "STG.E.64" if pairs else "STG.E.128"
        return AotCase(
            f"rope.{name}",
            rope_kernel,
            signature | more,
            {
                "HEAD_DIM": head_dim,
                "HEADS": heads,
                "HALF": half,
                "SIDE_BY_SIDE": pairs,
                "NORMED": name.endswith("normed"),
            }
            | {role: None for role in ("weight", *growing) if role not in more},
            num_warps=1,
            aligned=("x", "table", "out", "x_stride", "out_stride"),
            max_registers=80,
            max_shared=4 << 10 if pairs or name.endswith("normed") else 0,
            words=dict.fromkeys(architectures, ("LDG.E.128", "STG.E" if name == "d512.pairs.normed" else stored)),
            architectures=architectures,
        )

    return [
        case("d128", 128, {}, (80, 90, 100), False),
        case("d512.pairs", 512, {}, (80, 90, 100), True),
        case("d128.growing", 128, growing, (90,), False),
        case("d512.pairs.normed", 512, {"out": "*bf16"}, (90,), True),
        case("d128.normed", 128, {"out": "*bf16", "weight": "*fp32"}, (90,), False),
    ]
