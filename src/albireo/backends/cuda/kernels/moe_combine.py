"""moe_combine: out[t] = sum over j of weights[t, j] * x[t * k + j], and residual[t] behind it.

x: [T * k, N] float32; weights: [T, k] float32 without gaps; residual: [T, N] float32 or None; out: [T, N] float32, may
be residual; rows contiguous inside. num_real: [1] int32: what lies in x for a padding row is not read, its sum is 0.
ids: [T * k] int32 or None: likewise of a pair whose id is num_experts or above. keeps: x is [T, N] instead, and it is
such pairs alone that count: out[t] = x[t] * (the sum of their weights, j ascending), a padding row's, too. Each product
is rounded, then added, j ascending, then the residual: float32. parts_out: what a norm of out's rows is made of, see
parts/row_squares.py.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.linear_cases import OF_CODES, OF_NORM
from albireo.backends.cuda.kernels.parts.row_squares import RowParts, parts_arguments, store_parts_of_piece

_BLOCK = 512


@triton.jit(do_not_specialize=["num_real"])
def moe_combine_kernel(
    x,
    weights,
    residual,
    out,
    num_real,
    ids,
    num_experts,
    gain,
    scaled,
    squares,
    x_stride,
    residual_stride,
    out_stride,
    cols,
    scaled_stride,
    squares_stride,
    TOP_K: tl.constexpr,
    KEEPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    mask = at < cols
    there = tl.where(row < tl.load(num_real), cols, 0)
    total = tl.zeros((BLOCK,), tl.float32)
    if KEEPS:
        whole = tl.zeros((), tl.float32)
        for j in tl.static_range(TOP_K):
            weight = tl.load(weights + row * TOP_K + j)
            whole += tl.where(tl.load(ids + row * TOP_K + j) >= num_experts, weight, 0.0)
        total = whole * tl.load(x + row * x_stride + at, mask=mask, other=0.0)
    else:
        for j in tl.static_range(TOP_K):
            is_computed = at < there
            if ids is not None:
                is_computed = at < tl.where(tl.load(ids + row * TOP_K + j) < num_experts, there, 0)
            value = tl.load(x + (row * TOP_K + j) * x_stride + at, mask=is_computed, other=0.0)
            term = tl.where(is_computed, tl.load(weights + row * TOP_K + j) * value, 0.0)
            total = term if j == 0 else total + term
    if residual is not None:
        total = tl.load(residual + row * residual_stride + at, mask=mask, other=0.0) + total
    tl.store(out + row * out_stride + at, total, mask=mask)
    if gain is not None:
        store_parts_of_piece(total, cols, gain, scaled, scaled_stride, squares, squares_stride)


def moe_combine(
    x: torch.Tensor,
    weights: torch.Tensor,
    out: torch.Tensor,
    residual: torch.Tensor | None,
    num_real: torch.Tensor,
    parts_out: RowParts | None = None,
    ids: torch.Tensor | None = None,
    num_experts: int = 0,
    keeps: bool = False,
) -> None:
    num_tokens, cols = out.shape
    moe_combine_kernel[(num_tokens, triton.cdiv(cols, _BLOCK))](
        x=x,
        weights=weights,
        residual=residual,
        out=out,
        num_real=num_real,
        ids=ids,
        num_experts=num_experts,
        x_stride=x.stride(0),
        residual_stride=0 if residual is None else residual.stride(0),
        out_stride=out.stride(0),
        cols=cols,
        **parts_arguments(parts_out),
        TOP_K=weights.shape[1],
        KEEPS=keeps,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    numbers = ("x_stride", "residual_stride", "out_stride", "cols", "scaled_stride", "squares_stride", "num_experts")

    def case(name: str, more: dict[str, str], architectures: tuple[int, ...], keeps: bool = False) -> AotCase:
        pointers = dict.fromkeys(("x", "weights", "residual", "out"), "*fp32") | more
        return AotCase(
            f"moe_combine.{name}",
            moe_combine_kernel,
            pointers | {"num_real": "*i32"} | dict.fromkeys(numbers, "i32"),
            {"TOP_K": 8, "KEEPS": keeps, "BLOCK": _BLOCK}
            | {role: None for role in (*OF_NORM, "ids") if role not in more},
            aligned=(*pointers, *numbers[:-2]),
            max_registers=64,
            max_shared=8 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    ids = {"ids": "*i32"}
    return [
        case("8.ids", ids, (90,)),
        case("8.keeps", ids, (90,), True),
        case("8", {}, (90,)),
        case("8.norm", OF_NORM, (80, 90, 100)),
        case("8.codes", OF_CODES, (90,)),
    ]
