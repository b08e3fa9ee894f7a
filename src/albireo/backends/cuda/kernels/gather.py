"""gather: out[i] = x[rows[i]], whole rows as they are.

x: [T, C] and out: [R, C] of one element type, rows contiguous inside (any stride between them); rows: [R] int32. A
padding entry of rows is 0 and copies row 0.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

_BLOCK = 1024


@triton.jit
def gather_kernel(x, rows, out, x_stride, out_stride, cols, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = tl.load(rows + row).to(tl.int64)
    value = tl.load(x + source * x_stride + at, mask=at < cols)
    tl.store(out + row.to(tl.int64) * out_stride + at, value, mask=at < cols)


def gather(x: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
    cols = out.shape[1]
    grid = (out.shape[0], triton.cdiv(cols, _BLOCK))
    gather_kernel[grid](
        x, rows, out, x.stride(0), out.stride(0), cols, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    signature = {"x": "*bf16", "rows": "*i32", "out": "*bf16", "x_stride": "i32", "out_stride": "i32", "cols": "i32"}
    return [
        AotCase(
            "gather.bfloat16",
            gather_kernel,
            signature,
            {"BLOCK": _BLOCK},
            aligned=("x", "out", "x_stride", "out_stride", "cols"),
            max_registers=40,
            max_shared=0,
            words={90: ("LDG.E.128", "STG.E.128")},
        )
    ]
