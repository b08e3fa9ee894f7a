"""take_best: the best token of a row, for each task.

ids: [G, n] int32 and values: [G, n] float32, best first, rows contiguous, as top leaves them; rows: [S] int32, each
task's row. out: [S] int32, -1 where the best is no number, which the host's sampler explains. One launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase

_BLOCK = 256


@triton.jit(do_not_specialize=["count"])
def take_best_kernel(ids, values, rows, out, stride, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row = tl.load(rows + at, mask=at < count, other=0)
    value = tl.load(values + row * stride)
    token = tl.load(ids + row * stride)
    tl.store(out + at, tl.where(tl.abs(value) < float("inf"), token, -1), mask=at < count)


def take_best(ids: torch.Tensor, values: torch.Tensor, rows: torch.Tensor, out: torch.Tensor) -> None:
    grid = (triton.cdiv(len(out), _BLOCK),)
    take_best_kernel[grid](
        ids, values, rows, out, ids.stride(0), len(out), BLOCK=_BLOCK, num_warps=4, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    signature = {"ids": "*i32", "values": "*fp32", "rows": "*i32", "out": "*i32", "stride": "i32", "count": "i32"}
    return [AotCase("take_best", take_best_kernel, signature, {"BLOCK": _BLOCK}, max_registers=24, max_shared=0)]
