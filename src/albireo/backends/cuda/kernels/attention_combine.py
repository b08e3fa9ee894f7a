"""attention_combine: the parts that attention left of a row, merged in order of position; zeros for padding rows.

out: [T, H * D] float32, bfloat16 or float16, rows contiguous inside; work: the WorkList that attention ran with;
workspace: as attention left it. Rows that attention finished are not touched, padding rows are written with zeros. Puts
work.count[1] back to 0 for the next attention, so it follows every attention even where a step has no parts.

Merging is the sequence of operations that attention itself uses between splits (parts/softmax.py), so a row's bits do
not tell whether its context was computed in one piece. It is a chain, but a cheap one: 16 parts are on their way ahead
of it, so that 64 parts (32 k of context) wait for memory a few times, not 64 times.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.attention_plan import TOKEN_FIELDS, WorkList, parts_of
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.softmax import merge, normalise
from albireo.backends.cuda.step import DeviceStep

_AHEAD = 4
_STAGES = 5
_HEADS = 4


@triton.jit
def attention_combine_kernel(
    sums,
    stats,
    tokens,
    count,
    out,
    out_stride,
    num_heads,
    HEAD_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    TOKEN: tl.constexpr,
    AHEAD: tl.constexpr,
    STAGES: tl.constexpr,
):
    token = tl.program_id(0)
    if (token == 0) & (tl.program_id(1) == 0):
        tl.store(count + 1, 0)
    part = tl.load(tokens + token * TOKEN).to(tl.int64)
    stride = tl.load(tokens + token * TOKEN + 1)
    num_parts = tl.load(tokens + token * TOKEN + 2)
    if num_parts != 0:
        heads = tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
        dims = tl.arange(0, BLOCK_DIM)
        is_dim = dims < HEAD_DIM
        total_m = tl.full((BLOCK_HEADS,), float("-inf"), tl.float32)
        total_l = tl.zeros((BLOCK_HEADS,), tl.float32)
        total = tl.zeros((BLOCK_HEADS, BLOCK_DIM), tl.float32)
        for first in tl.range(0, num_parts, AHEAD, num_stages=STAGES):
            for ahead in tl.static_range(AHEAD):
                i = first + ahead
                is_there = heads < tl.where(i < num_parts, num_heads, 0)
                at = (part + i * stride) * num_heads + heads
                m = tl.load(stats + at * 2, mask=is_there, other=float("-inf"))
                l = tl.load(stats + at * 2 + 1, mask=is_there, other=0.0)  # noqa: E741
                numbers = at[:, None] * HEAD_DIM + dims[None, :]
                acc = tl.load(sums + numbers, mask=is_there[:, None] & is_dim[None, :], other=0.0)
                total_m, total_l, total = merge(total_m, total_l, total, m, l, acc)
        is_number = (heads < num_heads)[:, None] & is_dim[None, :]
        at_out = token.to(tl.int64) * out_stride + heads[:, None] * HEAD_DIM + dims[None, :]
        tl.store(out + at_out, round_to(normalise(total_l, total), out.dtype.element_ty), mask=is_number)


def attention_combine(out: torch.Tensor, step: DeviceStep, work: WorkList, workspace: torch.Tensor) -> None:
    shape = work.shape
    sums, stats = parts_of(shape, work.plan(step), workspace)
    attention_combine_kernel[(step.sizes["T"], triton.cdiv(shape.num_heads, _HEADS))](
        sums,
        stats,
        work.tokens,
        work.count,
        out,
        out.stride(0),
        shape.num_heads,
        HEAD_DIM=shape.head_dim,
        BLOCK_DIM=max(16, triton.next_power_of_2(shape.head_dim)),
        BLOCK_HEADS=_HEADS,
        TOKEN=TOKEN_FIELDS,
        AHEAD=_AHEAD,
        STAGES=_STAGES,
        num_warps=4,
    )


def aot_cases() -> list[AotCase]:
    return [
        AotCase(
            f"attention_combine.d{head_dim}",
            attention_combine_kernel,
            {
                "sums": "*fp32",
                "stats": "*fp32",
                "tokens": "*i32",
                "count": "*i32",
                "out": "*bf16",
                "out_stride": "i32",
                "num_heads": "i32",
            },
            {
                "HEAD_DIM": head_dim,
                "BLOCK_DIM": triton.next_power_of_2(head_dim),
                "BLOCK_HEADS": _HEADS,
                "TOKEN": TOKEN_FIELDS,
                "AHEAD": _AHEAD,
                "STAGES": _STAGES,
            },
            aligned=("sums", "stats", "tokens", "count", "out", "out_stride"),
            max_registers=64,
            max_shared=34 << 10,
            words={80: ("LDGSTS.E.BYPASS.128",), 90: ("LDGSTS.E.BYPASS.128",)},
        )
        for head_dim in (80, 128)
    ]
