"""sample_search: the logits down to which top-k and top-p keep tokens, for tasks that sample_settle.py left.

Arrays as in sample_bracket.py, which comes before and says between which logits top-p's lowest lies where there is no
top_k. inside: [S, ROOM] int32 gets the orders (ordering.py) of those that lie there. One launch; the last tile of a row
searches them (ordering.reaching, over more than registers hold) and leaves CUT, LOW, ABOVE and TARGET in state. Where
they are more than ROOM (many equal ones), and for top-k, it searches the whole row: right, but slow.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arriving import arrives_last
from albireo.backends.cuda.kernels.parts.ordering import LOWEST, NOTHING, number_of, order_of
from albireo.backends.cuda.kernels.parts.waiting import OF_ALL, OF_SOME, task_and_tile, waiting
from albireo.backends.cuda.kernels.parts.weights import (
    ABOVE,
    CUT,
    FIELDS,
    HIGH,
    LOW,
    PEAK,
    TARGET,
    part_of,
    row_tile,
    weigh,
)
from albireo.backends.cuda.sample_call import SampleCall, sample_case

#: Orders that a task has room for: twice what a sample of 128 leaves between two splits, and more.
ROOM = 16384
_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def orders_at(start, inside, num_inside, logits, work, row, task, changed, stride, vocab, TILE: tl.constexpr):
    """Orders from start on: of those inside, or if num_inside is -1 of the row; NOTHING behind the last."""
    at = start + tl.arange(0, TILE)
    listed = tl.load(inside + at, mask=at < num_inside, other=NOTHING, cache_modifier=".cg")
    x = row_tile(logits, work, row, task, changed, at, at < tl.where(num_inside < 0, vocab, 0), stride, vocab)
    # what is not read is -inf, and below all that is searched
    return tl.maximum(listed, order_of(x))


@triton.jit
def weights_of(order, cut, peak, warmth, least, BY_COUNT: tl.constexpr, BITS: tl.constexpr):
    """int64 weights of those at or above cut; BY_COUNT: each weighs 1."""
    kept = order >= cut
    if BY_COUNT:
        return kept.to(tl.int64)
    return tl.where(kept, weigh(tl.where(kept, number_of(order), peak), peak, warmth, least, BITS), 0)


@triton.jit
def sum_above(
    bound, cut, inside, num_inside, logits, work, row, task, changed, stride, vocab, peak, warmth, least,
    BITS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """The weight of all above bound and at or above cut."""
    total = tl.zeros((TILE,), tl.int64)
    for start in range(0, tl.where(num_inside < 0, vocab, num_inside), TILE):
        order = orders_at(start, inside, num_inside, logits, work, row, task, changed, stride, vocab, TILE)
        weight = weights_of(order, cut, peak, warmth, least, False, BITS)
        total += tl.where(order > bound, weight, 0)
    return tl.sum(total, 0)


@triton.jit
def reaching_long(
    low, high, target, cut, inside, num_inside, logits, work, row, task, changed, stride, vocab, peak, warmth, least,
    BY_COUNT: tl.constexpr, BITS: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """As ordering.reaching, over orders_at(); high: no entry lies above it, or none that matters."""
    while low < high:
        middle = (low | high) - ((low ^ high) >> 1)
        total = tl.zeros((TILE,), tl.int64)
        lowest, highest = tl.full((TILE,), high, tl.int32), tl.full((TILE,), low, tl.int32)
        for start in range(0, tl.where(num_inside < 0, vocab, num_inside), TILE):
            order = orders_at(start, inside, num_inside, logits, work, row, task, changed, stride, vocab, TILE)
            weight = weights_of(order, tl.maximum(cut, middle), peak, warmth, least, BY_COUNT, BITS)
            total += weight
            lowest = tl.minimum(lowest, tl.where(order >= middle, order, high))
            highest = tl.maximum(highest, tl.where(order >= middle, low, order))
        if tl.sum(total, 0) >= target:
            low = tl.min(lowest, 0)
        else:
            high = tl.max(highest, 0)
    return low


@triton.jit(do_not_specialize=["num_tasks"])
def sample_search_kernel(
    logits,
    rows,
    flags,
    temperature,
    top_k,
    top_p,
    min_p,
    work,
    inside,
    num_found,
    state,
    draws,
    arrived,
    stride,
    vocab,
    tiles,
    num_tasks,
    BITS: tl.constexpr,
    TASKS: tl.constexpr,
    ROOM: tl.constexpr,
    TILE: tl.constexpr,
):
    places, num_waiting = waiting(draws, num_tasks, OF_ALL, OF_SOME, TASKS)
    for item in range(tl.program_id(0), num_waiting * tiles, tl.num_programs(0)):
        task, tile, row, changed = task_and_tile(places, item, tiles, rows, flags, TASKS)
        own = state + task * _FIELDS
        k, part = tl.load(top_k + task), tl.load(top_p + task)
        best = tl.load(own + PEAK).to(tl.int32)
        low, high = tl.load(own + LOW).to(tl.int32), tl.load(own + HIGH).to(tl.int32)
        listed = inside + task * ROOM
        if k == 0:
            at = tile * TILE + tl.arange(0, TILE)
            order = order_of(row_tile(logits, work, row, task, changed, at, at >= 0, stride, vocab))
            is_in = (order >= low) & (order <= high)
            count = tl.sum(is_in.to(tl.int32), 0)
            if count > 0:
                slot = tl.atomic_add(num_found + task, count, sem="relaxed") + tl.cumsum(is_in.to(tl.int32), 0) - 1
                tl.store(listed + slot, order, mask=is_in & (slot < ROOM))
        if arrives_last(arrived + task, tiles):
            peak, warmth, least = number_of(best), tl.load(temperature + task), tl.load(min_p + task)
            count = tl.load(num_found + task, cache_modifier=".cg")
            cut = tl.full((), LOWEST, tl.int32)
            num_inside = tl.where((k == 0) & (count <= ROOM), count, -1)
            above, target = tl.load(own + ABOVE), tl.load(own + TARGET)
            if k > 0:
                cut = reaching_long(
                    cut, best, k.to(tl.int64), cut, listed, num_inside, logits, work, row, task, changed, stride, vocab,
                    peak, warmth, least, True, BITS, TILE,
                )  # fmt: skip
                tl.store(own + CUT, cut.to(tl.int64))
                low, high = cut, best
            if part < 1.0:
                if num_inside < 0:
                    # above is of the whole row then, and so is what is searched
                    above = tl.zeros((), tl.int64)
                if k > 0:
                    whole = sum_above(
                        cut - 1, cut, listed, num_inside, logits, work, row, task, changed, stride, vocab, peak, warmth,
                        least, BITS, TILE,
                    )  # fmt: skip
                    target = part_of(whole, part)
                low = reaching_long(
                    low, high, target - above, cut, listed, num_inside, logits, work, row, task, changed, stride, vocab,
                    peak, warmth, least, False, BITS, TILE,
                )  # fmt: skip
                above += sum_above(
                    low, cut, listed, num_inside, logits, work, row, task, changed, stride, vocab, peak, warmth, least,
                    BITS, TILE,
                )  # fmt: skip
                tl.store(own + LOW, low.to(tl.int64))
                tl.store(own + ABOVE, above)
                tl.store(own + TARGET, target)


def sample_search(call: SampleCall) -> None:
    sample_search_kernel[call.programs](
        **call.arguments(sample_search_kernel), ROOM=ROOM, num_warps=8, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    return [sample_case("sample_search", sample_search_kernel, 255, 20 << 10, ("LDG.E.128", "DFMA"), ROOM=ROOM)]
