"""sample_whole: what all logits of a row weigh, by tile, for tasks with top_p and no top_k.

Arrays as sample_peak.py left them; temperature, min_p: [S] float64. strict: [S, tiles] int64. One launch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import number_of
from albireo.backends.cuda.kernels.parts.waiting import OF_ALL, task_and_tile, waiting
from albireo.backends.cuda.kernels.parts.weights import FIELDS, PEAK, row_tile, weigh
from albireo.backends.cuda.sample_call import SampleCall, sample_case

_FIELDS = tl.constexpr(FIELDS)


@triton.jit(do_not_specialize=["num_tasks"])
def sample_whole_kernel(
    logits,
    rows,
    flags,
    temperature,
    min_p,
    work,
    strict,
    state,
    draws,
    stride,
    vocab,
    tiles,
    num_tasks,
    BITS: tl.constexpr,
    TASKS: tl.constexpr,
    TILE: tl.constexpr,
):
    places, num_waiting = waiting(draws, num_tasks, OF_ALL, OF_ALL, TASKS)
    for item in range(tl.program_id(0), num_waiting * tiles, tl.num_programs(0)):
        task, tile, row, changed = task_and_tile(places, item, tiles, rows, flags, TASKS)
        at = tile * TILE + tl.arange(0, TILE)
        x = row_tile(logits, work, row, task, changed, at, at >= 0, stride, vocab)
        peak = number_of(tl.load(state + task * _FIELDS + PEAK).to(tl.int32))
        weight = weigh(x, peak, tl.load(temperature + task), tl.load(min_p + task), BITS)
        tl.store(strict + task * tiles + tile, tl.sum(weight, 0))


def sample_whole(call: SampleCall) -> None:
    sample_whole_kernel[call.programs](**call.arguments(sample_whole_kernel), num_warps=8, enable_fp_fusion=False)


def aot_cases() -> list[AotCase]:
    return [sample_case("sample_whole", sample_whole_kernel, 128, 1 << 10, ("LDG.E.128", "DFMA"))]
