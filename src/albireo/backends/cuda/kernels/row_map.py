"""row_map: of rows as a whole. match_length: out[t] = x[t] * sqrt(mean(y[t]^2) / max(mean(x[t]^2), number)). cut:
out[t] = what x[t] is above its mean and `number` of its standard deviations (of all numbers), else 0.

x, y, out: [T, E] float32, rows any distance apart, columns contiguous; out may be x or y. The mean is subtracted before
differences are squared. A program takes a row and holds all of it: made for E up to 32768. A row's bits depend on the
row alone; a padding row is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.row_codes import row_block, row_warps, tile_columns


@triton.jit
def row_map_kernel(
    x, y, out, x_stride, y_stride, out_stride, cols, number, KIND: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    at = tile_columns(0, BLOCK)
    mask = at < cols
    value = tl.load(x + row * x_stride + at, mask=mask, other=0.0)
    if KIND == "match_length":
        own = _mean(value * value, cols)
        other = tl.load(y + row * y_stride + at, mask=mask, other=0.0)
        # a mean that is no number stays none
        own = tl.where(own < number, number, own)
        value = value * tl.sqrt_rn(tl.div_rn(_mean(other * other, cols), own))
    else:
        mean = _mean(value, cols)
        away = tl.where(mask, value - mean, 0.0)
        value = value - (mean + number * tl.sqrt_rn(_mean(away * away, cols)))
        value = tl.where(value < 0.0, 0.0, value)
    tl.store(out + row * out_stride + at, value, mask=mask)


@triton.jit
def _mean(tile, cols):
    """Of cols numbers, zeros behind."""
    return tl.div_rn(tl.sum(tl.sum(tile, axis=1), axis=0), cols * 1.0)


def row_map(kind: str, x: torch.Tensor, y: torch.Tensor | None, out: torch.Tensor, number: float) -> None:
    """kind: one of graph.program_spec.ROW_KINDS. y: of match_length."""
    cols = x.shape[1]
    block = row_block(cols)
    row_map_kernel[(x.shape[0],)](
        x,
        y,
        out,
        x.stride(0),
        0 if y is None else y.stride(0),
        out.stride(0),
        cols,
        number,
        KIND=kind,
        BLOCK=block,
        num_warps=row_warps(block),
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    strides = ("x_stride", "y_stride", "out_stride", "cols")

    def case(kind: str, block: int, architectures: tuple[int, ...]) -> AotCase:
        roles = ("x", "out", *(("y",) if kind == "match_length" else ()))
        return AotCase(
            f"row_map.{kind}.{block}",
            row_map_kernel,
            dict.fromkeys(roles, "*fp32") | dict.fromkeys(strides, "i32") | {"number": "fp32"},
            {"KIND": kind, "BLOCK": block} | ({} if "y" in roles else {"y": None}),
            num_warps=row_warps(block),
            aligned=(*roles, *strides),
            max_registers=64,
            max_shared=1 << 10,
            words={architecture: ("LDG.E.128", "STG.E.128") for architecture in architectures},
            architectures=architectures,
        )

    return [case("match_length", 2048, (90,)), case("cut", 16384, (80, 90, 100))]
