"""slice_columns: out[i] = x[i, start : start + C], columns as they are.

x: [R, more than C] and out: [R, C] of one element type, columns contiguous, rows any distance apart.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

_BLOCK = 1024


@triton.jit
def slice_kernel(x, out, start, x_stride, out_stride, cols, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + row * x_stride + start + at, mask=at < cols)
    tl.store(out + row * out_stride + at, value, mask=at < cols)


def slice_columns(x: torch.Tensor, start: int, out: torch.Tensor) -> None:
    """start: the first column of x that is copied."""
    cols = out.shape[1]
    grid = (out.shape[0], triton.cdiv(cols, _BLOCK))
    slice_kernel[grid](
        x, out, start, x.stride(0), out.stride(0), cols, BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    signature = {"x": "*fp32", "out": "*fp32", "start": "i32", "x_stride": "i32", "out_stride": "i32", "cols": "i32"}
    return [
        AotCase(
            "slice_columns.float32",
            slice_kernel,
            signature,
            {"BLOCK": _BLOCK},
            aligned=tuple(signature),
            max_registers=40,
            max_shared=0,
            words={90: ("LDG.E.128", "STG.E.128")},
        )
    ]
