"""norm: out[i] = x[r] / sqrt(mean(x[r]^2) + eps) [* weight] [+ bias] [+ base[i]], with r = rows[i] or i. Centered, of
x[r] - mean(x[r]): the mean, then squares of differences from it.

x: [T, E] float32; weight, bias: [E] float32; base: [R, E] float32, which may be out; rows: [R] int32. out: [R, E]
float32, bfloat16 or float16; token rows (uint8, or float8 e4m3; ../tokens.py). Columns are contiguous, rows any
distance apart. A program takes a row and holds all of it: made for E up to 32768. A padding entry of rows is 0; a
padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.row_codes import row_block, row_warps, store_row, tile_columns


@triton.jit
def norm_kernel(
    x,
    rows,
    weight,
    bias,
    base,
    out,
    x_stride,
    base_stride,
    out_stride,
    cols,
    eps,
    CENTERED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    at = tile_columns(0, BLOCK)
    mask = at < cols
    source = row
    if rows is not None:
        source = tl.load(rows + row)
    source = source.to(tl.int64)
    value = tl.load(x + source * x_stride + at, mask=mask, other=0.0)
    if CENTERED:
        mean = tl.div_rn(tl.sum(tl.sum(value, axis=1), axis=0), cols * 1.0)
        value = tl.where(mask, value - mean, 0.0)
    squares = tl.sum(tl.sum(value * value, axis=1), axis=0)
    factor = tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(squares, cols * 1.0) + eps))
    value = value * factor
    if weight is not None:
        value = value * tl.load(weight + at, mask=mask, other=0.0)
    if bias is not None:
        value += tl.load(bias + at, mask=mask, other=0.0)
    if base is not None:
        value += tl.load(base + row.to(tl.int64) * base_stride + at, mask=mask, other=0.0)
    store_row(out, row, out_stride, at, value, cols, BLOCK)


def norm(
    x: torch.Tensor,
    weight: torch.Tensor | None,
    out: torch.Tensor,
    eps: float,
    cols: int,
    rows: torch.Tensor | None = None,
    base: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    centered: bool = False,
) -> None:
    """cols: E, which a token row does not tell."""
    block = row_block(cols)
    norm_kernel[(out.shape[0],)](
        x,
        rows,
        weight,
        bias,
        base,
        out,
        x.stride(0),
        0 if base is None else base.stride(0),
        out.stride(0),
        cols,
        eps,
        CENTERED=centered,
        BLOCK=block,
        num_warps=row_warps(block),
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = {name: "i32" for name in ("x_stride", "base_stride", "out_stride", "cols")}
    optional = ("rows", "bias", "base")
    base = {"x": "*fp32", "weight": "*fp32", "eps": "fp32", **strides}

    def case(name: str, block: int, registers: int, more: dict[str, str], architectures: tuple[int, ...]) -> AotCase:
        signature = {**base, **more}
        return AotCase(
            f"norm.{name}",
            norm_kernel,
            signature,
            {"BLOCK": block, "CENTERED": "bias" in more, **{role: None for role in optional if role not in more}},
            num_warps=row_warps(block),
            aligned=tuple(role for role in signature if role not in ("eps", "rows")),
            max_registers=registers,
            max_shared=24 << 10,
            words={architecture: ("LDG.E.128",) for architecture in architectures},
            architectures=architectures,
        )

    return [
        case("bfloat16.4096", 4096, 48, {"out": "*bf16", "rows": "*i32"}, (80, 90, 100)),
        case("tokens.4096", 4096, 48, {"out": "*u8"}, (80,)),
        case("tokens.16384", 16384, 64, {"out": "*u8"}, (90,)),
        case("layer.bfloat16.4096", 4096, 48, {"out": "*bf16", "bias": "*fp32"}, (80, 90)),
        case("fp8.4096", 4096, 48, {"out": "*fp8e4nv"}, (90, 100)),
        case("behind.float32.4096", 4096, 48, {"out": "*fp32", "base": "*fp32"}, (90,)),
    ]
