"""sample_draw: one token a task, the inverse of its cumulative weights in the order of ids, at uniform(seed, position).

Arrays as in sample_search.py, which comes before for tasks with top_k or top_p. seed, position: [S] int64. strict: [S,
tiles] int64 and ties: [S, tiles] int32 are scratch: each tile's weight above the bound, and how many are on it. out:
[S] int32 is written for tasks that draw. One launch: the last tile of a row adds up all tiles in order, and draws from
the tile under which the number falls.

Of tokens on top-p's bound those with the lowest ids are kept, as many as it takes. How close this is to the host, whose
weights are float64: over a whole vocabulary of 128 thousand (bits = 45) the edges between tokens move by 1e-8 together
for logits of standard deviation 4, by 5e-7 for 8, and that is how likely a draw is to give another token (float32
weights would make it 2e-4 to 6e-4). Tokens of less than 2^-46 of the best one's probability are never drawn.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arriving import arrives_last
from albireo.backends.cuda.kernels.parts.ordering import number_of, order_of
from albireo.backends.cuda.kernels.parts.philox import uniform
from albireo.backends.cuda.kernels.parts.waiting import OF_SOME, PLAIN, task_and_tile, waiting
from albireo.backends.cuda.kernels.parts.weights import (
    ABOVE,
    CUT,
    FIELDS,
    LOW,
    PEAK,
    TARGET,
    row_tile,
    weigh,
)
from albireo.backends.cuda.sample_call import SampleCall, sample_case

_FIELDS = tl.constexpr(FIELDS)


@triton.jit(do_not_specialize=["num_tasks"])
def sample_draw_kernel(
    logits,
    rows,
    flags,
    temperature,
    top_p,
    min_p,
    seed,
    position,
    work,
    strict,
    ties,
    state,
    draws,
    arrived,
    out,
    stride,
    vocab,
    tiles,
    num_tasks,
    BITS: tl.constexpr,
    TASKS: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
):
    places, num_waiting = waiting(draws, num_tasks, PLAIN, OF_SOME, TASKS)
    for item in range(tl.program_id(0), num_waiting * tiles, tl.num_programs(0)):
        task, tile, row, changed = task_and_tile(places, item, tiles, rows, flags, TASKS)
        own = state + task * _FIELDS
        warmth, least = tl.load(temperature + task), tl.load(min_p + task)
        peak = number_of(tl.load(own + PEAK).to(tl.int32))
        has_top_p = tl.load(top_p + task) < 1.0
        # without top-p nothing is on the bound that counts
        bound = tl.where(has_top_p, tl.load(own + LOW), tl.load(own + CUT) - 1).to(tl.int32)
        at = tile * TILE + tl.arange(0, TILE)
        x = row_tile(logits, work, row, task, changed, at, at >= 0, stride, vocab)
        order = order_of(x)
        weight = tl.where((order > bound) & (at < vocab), weigh(x, peak, warmth, least, BITS), 0)
        above, equal = strict + task * tiles, ties + task * tiles
        tl.store(above + tile, tl.sum(weight, 0))
        tl.store(equal + tile, tl.sum(((order == bound) & (at < vocab)).to(tl.int32), 0))
        if arrives_last(arrived + task, tiles):
            one = weigh(number_of(bound), peak, warmth, least, BITS)
            missing = tl.load(own + TARGET) - tl.load(own + ABOVE)
            wanted = tl.where(has_top_p, (missing + tl.maximum(one, 1) - 1) // tl.maximum(one, 1), 0)
            each = tl.arange(0, TILES)
            there = each < tiles
            num_ties = tl.load(equal + each, mask=there, other=0, cache_modifier=".cg").to(tl.int64)
            ties_before = tl.cumsum(num_ties, 0) - num_ties
            kept = tl.minimum(tl.maximum(wanted - ties_before, 0), num_ties)
            sums = tl.load(above + each, mask=there, other=0, cache_modifier=".cg") + kept * one
            running = tl.cumsum(sums, 0)
            whole = tl.sum(sums, 0)
            number = (uniform(tl.load(seed + task), tl.load(position + task)) * whole.to(tl.float64)).to(tl.int64)
            number = tl.minimum(number, whole - 1)
            chosen = tl.sum(((running <= number) & there).to(tl.int32), 0)
            number -= tl.sum(tl.where(each < chosen, sums, 0), 0)
            wanted -= tl.sum(tl.where(each < chosen, num_ties, 0), 0)
            at = chosen * TILE + tl.arange(0, TILE)
            x = row_tile(logits, work, row, task, changed, at, at >= 0, stride, vocab)
            order = order_of(x)
            on = (order == bound) & (at < vocab)
            is_kept = (order > bound) | (on & (tl.cumsum(on.to(tl.int32), 0) <= wanted))
            weight = tl.where(is_kept & (at < vocab), weigh(x, peak, warmth, least, BITS), 0)
            place = tl.sum((tl.cumsum(weight, 0) <= number).to(tl.int32), 0)
            tl.store(out + task, chosen * TILE + place)


def sample_draw(call: SampleCall) -> None:
    sample_draw_kernel[call.programs](**call.arguments(sample_draw_kernel), num_warps=8, enable_fp_fusion=False)


def aot_cases() -> list[AotCase]:
    return [sample_case("sample_draw", sample_draw_kernel, 200, 20 << 10, ("LDG.E.128", "DFMA"))]
