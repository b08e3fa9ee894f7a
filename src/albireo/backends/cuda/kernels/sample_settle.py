"""sample_settle: the token of a task with top_k or top_p whose candidates are few enough and hold what it keeps.

Arrays as sample_gather.py left them; seed, position: [S] int64. out: [S] int32 is written for tasks that are settled
here, which draw no more (draws); the others are left to sample_search.py. One launch, one program a task, a quarter of
the width where candidates are few. Bounds are found by halving the range of the candidates in registers: of logits for
top-k, then for top-p, of ids for what is on top-p's bound and for the draw. All sums are of whole numbers, so it does
not matter how candidates lie.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import NO_KEY, NOTHING, number_of, place_of, reaching
from albireo.backends.cuda.kernels.parts.philox import uniform
from albireo.backends.cuda.kernels.parts.waiting import NOTHING_TO_DRAW, OF_ALL
from albireo.backends.cuda.kernels.parts.weights import BOUND, FIELDS, PEAK, part_of, weigh
from albireo.backends.cuda.kernels.sample_gather import MOST
from albireo.backends.cuda.sample_call import SampleCall, sample_case

_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def settled(
    keys, count, k, top_p, peak, bound, warmth, least, all_weight, number, BITS: tl.constexpr, SIZE: tl.constexpr
):
    """The token under which number, float64 in [0, 1), falls; -1 if top-p keeps more than the candidates."""
    at = tl.arange(0, SIZE)
    there = at < count
    key = tl.load(keys + at, mask=there, other=NO_KEY)
    order = (key >> 32).to(tl.int32)
    # ids from the lowest on are largest first
    minus = tl.where(there, -place_of(key), NOTHING)
    cut = bound
    if k > 0:
        cut = reaching(order, there.to(tl.int32), tl.minimum(k, count), bound)
    weight = weigh(tl.where(there, number_of(order), peak), peak, warmth, least, BITS)
    weight = tl.where(order >= cut, weight, 0)
    held = tl.sum(weight, 0)
    token = tl.full((), -1, tl.int32)
    target = part_of(tl.where(k > 0, held, all_weight), top_p)
    if held >= target:
        if top_p < 1.0:
            low = reaching(order, weight, target, cut)
            on = order == low
            above = tl.sum(tl.where(order > low, weight, 0), 0)
            one = tl.maximum(tl.max(tl.where(on, weight, 0), 0), 1)
            wanted = (target - above + one - 1) // one
            last = tl.full((), NOTHING, tl.int32)
            if tl.sum(on.to(tl.int32), 0) > wanted:
                last = reaching(minus, on.to(tl.int32), wanted, last)
            weight = tl.where((order > low) | (on & (minus >= last)), weight, 0)
            held = tl.sum(weight, 0)
        found = tl.minimum((number * held.to(tl.float64)).to(tl.int64), held - 1)
        token = -reaching(minus, weight, found + 1, tl.full((), NOTHING, tl.int32))
    return token


@triton.jit
def sample_settle_kernel(
    temperature,
    top_k,
    top_p,
    min_p,
    seed,
    position,
    num_found,
    keys,
    strict,
    state,
    draws,
    out,
    tiles,
    BITS: tl.constexpr,
    TILES: tl.constexpr,
    MOST: tl.constexpr,
):
    task = tl.program_id(0)
    state += task * _FIELDS
    k, part = tl.load(top_k + task), tl.load(top_p + task)
    if tl.load(draws + task) >= OF_ALL:
        count = tl.load(num_found + task)
        if count <= MOST:
            keys += task.to(tl.int64) * MOST
            peak, bound = number_of(tl.load(state + PEAK).to(tl.int32)), tl.load(state + BOUND).to(tl.int32)
            warmth, least = tl.load(temperature + task), tl.load(min_p + task)
            number = uniform(tl.load(seed + task), tl.load(position + task))
            tile = tl.arange(0, TILES)
            # of a task with top_k this holds nothing, and is not looked at
            all_weight = tl.sum(tl.load(strict + task * tiles + tile, mask=tile < tiles, other=0), 0)
            if count <= MOST // 8:
                token = settled(keys, count, k, part, peak, bound, warmth, least, all_weight, number, BITS, MOST // 8)
            else:
                token = settled(keys, count, k, part, peak, bound, warmth, least, all_weight, number, BITS, MOST)
            if token >= 0:
                tl.store(out + task, token)
                tl.store(draws + task, NOTHING_TO_DRAW)


def sample_settle(call: SampleCall) -> None:
    sample_settle_kernel[(call.num_tasks,)](
        **call.arguments(sample_settle_kernel), MOST=MOST, num_warps=4, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    return [
        sample_case("sample_settle", sample_settle_kernel, 255, 4 << 10, ("DFMA",), aligned=(), num_warps=4, MOST=MOST)
    ]
