"""two_norms: a norm that is added to others, and a norm of the sum:

    out[t] = (x[t] / sqrt(mean(x[t]^2) + eps) * weight + base[t]) * by
    normed[t] = out[t] / sqrt(mean(out[t]^2) + next_eps) * next_weight

x, base, out: [T, E] float32, base may be out; weight, next_weight: [E] float32 or None; by: [1] float32 or None.
normed: [T, E] float32, bfloat16 or float16; or token rows (uint8, or float8 e4m3; ../tokens.py). Columns are
contiguous, rows any distance apart. A program takes a row and holds all of it: made for E up to 16384, which take 64
KiB of shared memory. Bits are those of norm, of scale_by and of norm, one behind another; a padding row is like others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.row_codes import row_block, row_warps, store_row, tile_columns


@triton.jit
def _normed(value, weight, at, cols, eps):
    """value: a row, zeros behind its columns."""
    squares = tl.sum(tl.sum(value * value, axis=1), axis=0)
    value = value * tl.div_rn(1.0, tl.sqrt_rn(tl.div_rn(squares, cols * 1.0) + eps))
    if weight is not None:
        value = value * tl.load(weight + at, mask=at < cols, other=0.0)
    return value


@triton.jit
def two_norms_kernel(
    x,
    weight,
    base,
    by,
    next_weight,
    out,
    normed,
    x_stride,
    base_stride,
    out_stride,
    normed_stride,
    cols,
    eps,
    next_eps,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    at = tile_columns(0, BLOCK)
    mask = at < cols
    value = tl.load(x + row.to(tl.int64) * x_stride + at, mask=mask, other=0.0)
    value = _normed(value, weight, at, cols, eps)
    value += tl.load(base + row.to(tl.int64) * base_stride + at, mask=mask, other=0.0)
    if by is not None:
        value = value * tl.load(by)
    tl.store(out + row.to(tl.int64) * out_stride + at, value, mask=mask)
    store_row(normed, row, normed_stride, at, _normed(value, next_weight, at, cols, next_eps), cols, BLOCK)


@dataclass(frozen=True, slots=True)
class Gain:
    """A norm of rows. Fields: weight: [E] float32, or None: ones."""

    eps: float
    weight: torch.Tensor | None = None


def two_norms(
    x: torch.Tensor,
    first: Gain,
    base: torch.Tensor,
    by: torch.Tensor | None,
    second: Gain,
    out: torch.Tensor,
    normed: torch.Tensor,
) -> None:
    cols = x.shape[1]
    block = row_block(cols)
    two_norms_kernel[(len(out),)](
        x,
        first.weight,
        base,
        by,
        second.weight,
        out,
        normed,
        x.stride(0),
        base.stride(0),
        out.stride(0),
        normed.stride(0),
        cols,
        first.eps,
        second.eps,
        BLOCK=block,
        num_warps=row_warps(block),
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = dict.fromkeys(("x_stride", "base_stride", "out_stride", "normed_stride", "cols"), "i32")
    floats = dict.fromkeys(("x", "weight", "base", "next_weight", "out"), "*fp32")

    def case(name: str, block: int, more: dict[str, str], architectures: tuple[int, ...]) -> AotCase:
        signature = {**floats, **strides, **more, "eps": "fp32", "next_eps": "fp32"}
        return AotCase(
            f"two_norms.{name}",
            two_norms_kernel,
            signature,
            {"BLOCK": block, **({} if "by" in more else {"by": None})},
            num_warps=row_warps(block),
            aligned=tuple(role for role in signature if role not in ("eps", "next_eps")),
            max_registers=64,
            max_shared=4 * block,
            words={architecture: ("LDG.E.128", "STG.E.128") for architecture in architectures},
            architectures=architectures,
        )

    return [
        case("bfloat16.4096", 4096, {"normed": "*bf16"}, (80, 90, 100)),
        case("by.bfloat16.8192", 8192, {"normed": "*bf16", "by": "*fp32"}, (90,)),
        case("tokens.4096", 4096, {"normed": "*u8"}, (80,)),
        case("fp8.4096", 4096, {"normed": "*fp8e4nv"}, (90, 100)),
    ]
