"""sample_bracket: between which logits top-p's lowest lies, for tasks without top_k that sample_settle.py left.

Arrays as in sample_gather.py. The row is split at SPLITS logits of a sample of it, more narrowly among its best, and a
tile sums the weights at or above each split (partial: [S, tiles, SPLITS] int64; the last split is below all). The last
tile of a row finds the first split at which top_p of the whole is reached, and leaves LOW, HIGH, ABOVE (HIGH) and
TARGET in state, 0 in num_found. One launch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arriving import arrives_last
from albireo.backends.cuda.kernels.parts.ordering import LOWEST, key_of, number_of, order_of
from albireo.backends.cuda.kernels.parts.waiting import OF_ALL, task_and_tile, waiting
from albireo.backends.cuda.kernels.parts.weights import (
    ABOVE,
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

SPLITS = 16
#: Logits of the sample, evenly spread over the row; split number j is the one behind the j * (j + 1) / 2 best of it.
_SAMPLE = 128
_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def sampled(start, logits, work, row, task, changed, stride, vocab, SAMPLE: tl.constexpr, SIZE: tl.constexpr):
    """Orders and keys, of which none are equal, of SIZE logits of the sample from start on."""
    place = start + tl.arange(0, SIZE)
    at = place * (vocab // SAMPLE) + (place * (vocab % SAMPLE)) // SAMPLE
    order = order_of(row_tile(logits, work, row, task, changed, at, place >= 0, stride, vocab))
    return order, key_of(order, place)


@triton.jit(do_not_specialize=["num_tasks"])
def sample_bracket_kernel(
    logits,
    rows,
    flags,
    temperature,
    top_p,
    min_p,
    work,
    partial,
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
    TILES: tl.constexpr,
    TILE: tl.constexpr,
    SAMPLE: tl.constexpr,
    SPLITS: tl.constexpr,
):
    places, num_waiting = waiting(draws, num_tasks, OF_ALL, OF_ALL, TASKS)
    for item in range(tl.program_id(0), num_waiting * tiles, tl.num_programs(0)):
        task, tile, row, changed = task_and_tile(places, item, tiles, rows, flags, TASKS)
        own = state + task * _FIELDS
        part = tl.load(top_p + task)
        peak = tl.load(own + PEAK).to(tl.int32)
        at = tile * TILE + tl.arange(0, TILE)
        x = row_tile(logits, work, row, task, changed, at, at >= 0, stride, vocab)
        sample, key = sampled(0, logits, work, row, task, changed, stride, vocab, SAMPLE, SAMPLE)
        rank = tl.zeros((SAMPLE,), tl.int32)
        for start in range(0, SAMPLE, SAMPLE // 4):
            _, other = sampled(start, logits, work, row, task, changed, stride, vocab, SAMPLE, SAMPLE // 4)
            rank += tl.sum((other[None, :] > key[:, None]).to(tl.int32), 1)
        order = order_of(x)
        weight = weigh(x, number_of(peak), tl.load(temperature + task), tl.load(min_p + task), BITS)
        split = tl.arange(0, SPLITS)
        edges = tl.full((SPLITS,), LOWEST, tl.int32)
        seen = tl.zeros((SPLITS,), tl.int64)
        for j in range(SPLITS):
            edge = tl.sum(tl.where(rank == (j + 1) * (j + 2) // 2, sample, 0), 0)
            edge = tl.where(j < SPLITS - 1, tl.maximum(edge, LOWEST), LOWEST)
            edges = tl.where(split == j, edge, edges)
            seen = tl.where(split == j, tl.sum(tl.where(order >= edge, weight, 0), 0), seen)
        sums = partial + task * tiles * SPLITS
        tl.store(sums + tile * SPLITS + split, seen)
        if arrives_last(arrived + task, tiles):
            each = tl.arange(0, TILES)
            there = (each < tiles)[:, None] & (split >= 0)[None, :]
            of_tiles = sums + each[:, None] * SPLITS + split[None, :]
            reached = tl.sum(tl.load(of_tiles, mask=there, other=0, cache_modifier=".cg"), 0)
            target = part_of(tl.max(reached, 0), part)
            chosen = tl.sum((reached < target).to(tl.int32), 0)
            low = tl.sum(tl.where(split == chosen, edges, 0), 0)
            before = tl.sum(tl.where(split == chosen - 1, edges, 0), 0) - 1
            tl.store(own + LOW, low.to(tl.int64))
            tl.store(own + HIGH, tl.where(chosen > 0, before, peak).to(tl.int64))
            tl.store(own + ABOVE, tl.sum(tl.where(split == chosen - 1, reached, 0), 0))
            tl.store(own + TARGET, target)
            tl.store(num_found + task, 0)


def sample_bracket(call: SampleCall) -> None:
    sample_bracket_kernel[call.programs](
        **call.arguments(sample_bracket_kernel), SAMPLE=_SAMPLE, SPLITS=SPLITS, num_warps=8, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    words = ("LDG.E.128", "DFMA")
    return [sample_case("sample_bracket", sample_bracket_kernel, 240, 20 << 10, words, SAMPLE=_SAMPLE, SPLITS=SPLITS)]
