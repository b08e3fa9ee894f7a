"""sample_peak: the best logit of each task, the token of those that take it, and a bound for those that keep few.

logits [R, V], rows, flags, work [S, V]: as sample_adjust left them. temperature: [S] float64, 0 for a task that is
greedy; top_k: [S] int32, 0 keeps all; top_p: [S] float64, 1 keeps all. best: [S, tiles] int64, the best key
(ordering.py) of each tile. out: [S] int32, the token of a greedy task; -1 where no logit is finite or one is NaN or
+inf, which the host's sampler explains. state: [S, FIELDS] int64 of weights.py, where a search begins. draws: [S] int32
of waiting.py. arrived: [S] int32, zeros before and after. One launch: the last tile of a row ends it.

For tasks with top_k or top_p, crests: [S, tiles, CRESTS] int32 gets the order of the best of each stretch of TILE /
CRESTS logits. The k-th largest of them is a bound at or above which k logits or more lie, and rarely many more;
with top_p alone it is the RANK-th. num_found: [S] int32 becomes 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arriving import arrives_last
from albireo.backends.cuda.kernels.parts.ordering import (
    LOWEST,
    NO_KEY,
    NOTHING,
    key_of,
    least_of_best,
    number_of,
    order_of,
    place_of,
)
from albireo.backends.cuda.kernels.parts.waiting import NOTHING_TO_DRAW, OF_ALL, OF_SOME, PLAIN
from albireo.backends.cuda.kernels.parts.weights import BOUND, CUT, FIELDS, PEAK, row_tile
from albireo.backends.cuda.sample_call import SampleCall, sample_case

#: Candidates, about, of a task with top_p alone.
_RANK = 1024
_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def sample_peak_kernel(
    logits,
    rows,
    flags,
    temperature,
    top_k,
    top_p,
    work,
    best,
    crests,
    num_found,
    out,
    state,
    draws,
    arrived,
    stride,
    vocab,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    CRESTS: tl.constexpr,
    RANK: tl.constexpr,
):
    task, tile, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    at = tile * TILE + tl.arange(0, TILE)
    changed = (tl.load(flags + task) & 1) != 0
    k = tl.load(top_k + task)
    truncates = (k > 0) | (tl.load(top_p + task) < 1.0)
    x = row_tile(logits, work, tl.load(rows + task), task, changed, at, at >= 0, stride, vocab)
    order = tl.where(at < vocab, order_of(x), NOTHING)
    most = tl.max(order, 0)
    best += task * tiles
    crests += task * tiles * CRESTS
    tl.store(best + tile, key_of(most, tl.min(tl.where(order == most, at, 0x7FFFFFFF), 0)))
    if truncates:
        crest = tl.max(tl.reshape(order, (CRESTS, TILE // CRESTS)), 1)
        tl.store(crests + tile * CRESTS + tl.arange(0, CRESTS), crest)
    if arrives_last(arrived + task, tiles):
        each = tl.arange(0, TILES)
        key = tl.max(tl.load(best + each, mask=each < tiles, other=NO_KEY, cache_modifier=".cg"), 0)
        peak = (key >> 32).to(tl.int32)
        is_number = tl.abs(number_of(peak)) < float("inf")
        greedy = tl.load(temperature + task) == 0.0
        is_drawn = is_number & (greedy == 0)
        tl.store(out + task, tl.where(is_number & greedy, place_of(key), -1))
        state += task * _FIELDS
        tl.store(state + PEAK, peak.to(tl.int64))
        # what is -inf is never kept
        tl.store(state + CUT, tl.full((), LOWEST, tl.int64))
        how = tl.where(k > 0, OF_SOME, tl.where(truncates, OF_ALL, PLAIN))
        tl.store(draws + task, tl.where(is_drawn, how, NOTHING_TO_DRAW))
        if is_drawn & truncates:
            stretch = tl.arange(0, TILES * CRESTS)
            crest = tl.load(crests + stretch, mask=stretch < tiles * CRESTS, other=NOTHING, cache_modifier=".cg")
            rank = tl.where(k > 0, k, RANK)
            bound = tl.full((), LOWEST, tl.int32)
            if tl.sum((crest >= LOWEST).to(tl.int32), 0) > rank:
                bound = least_of_best(crest, rank, bound)
            tl.store(state + BOUND, bound.to(tl.int64))
            tl.store(num_found + task, 0)


def sample_peak(call: SampleCall) -> None:
    sample_peak_kernel[(call.num_tasks, call.tiles)](
        **call.arguments(sample_peak_kernel), RANK=_RANK, num_warps=8, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    return [sample_case("sample_peak", sample_peak_kernel, 64, 1 << 10, ("LDG.E.128",), RANK=_RANK)]
