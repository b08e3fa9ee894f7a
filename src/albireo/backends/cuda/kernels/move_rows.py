"""move_rows: rows of one array to rows of another, which may be of another type: hidden states to where they are kept,
and back. out[put[i]] = x[taken[i]], rounded to nearest even where out has fewer bits; rows that nobody names stay.

x, out: [any, C] float32, bfloat16 or float16, rows contiguous inside, any distance apart. taken, put: [n] int32, or
None: i itself; one of them is given. Places that put names are counted in blocks of `size`, of which `span` numbers
belong to one: place(slot) = slot // span * size + slot % span. What padding names, place 0, any of its rows writes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import round_to

_BLOCK = 1024


@triton.jit
def move_rows_kernel(x, taken, out, put, x_stride, out_stride, cols, size, span, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    source = row if taken is None else tl.load(taken + row)
    target = row
    if put is not None:
        slot = tl.load(put + row)
        target = slot // span * size + slot % span
    value = tl.load(x + source.to(tl.int64) * x_stride + at, mask=at < cols, other=0.0).to(tl.float32)
    tl.store(out + target.to(tl.int64) * out_stride + at, round_to(value, out.dtype.element_ty), mask=at < cols)


def move_rows(
    x: torch.Tensor,
    out: torch.Tensor,
    *,
    taken: torch.Tensor | None = None,
    put: torch.Tensor | None = None,
    size: int = 1,
    span: int = 1,
) -> None:
    named = put if taken is None else taken
    assert named is not None, "rows are named on one side"
    if not len(named):
        return
    cols = x.shape[1]
    grid = (len(named), triton.cdiv(cols, _BLOCK))
    move_rows_kernel[grid](
        x,
        taken,
        out,
        put,
        x.stride(0),
        out.stride(0),
        cols,
        size,
        span,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    numbers = {"x_stride": "i32", "out_stride": "i32", "cols": "i32", "size": "i32", "span": "i32"}

    def case(name: str, pointers: dict[str, str], absent: str, max_shared: int) -> AotCase:
        return AotCase(
            f"move_rows.{name}",
            move_rows_kernel,
            {**pointers, **numbers},
            {"BLOCK": _BLOCK, absent: None},
            aligned=("x", "out", *numbers),
            max_registers=40,
            max_shared=max_shared,
            words={90: ("LDG.E.128",) if name == "kept" else ("STG.E.128",)},
        )

    return [
        case("kept", {"x": "*fp32", "out": "*bf16", "put": "*i32"}, "taken", 0),
        case("read", {"x": "*bf16", "taken": "*i32", "out": "*fp32"}, "put", 2048),
    ]
