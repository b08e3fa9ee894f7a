"""sample_search: the logit down to which a task keeps tokens, for top-k and for top-p, without sorting.

A search in the order of float32 numbers: each round cuts what is left of it into buckets, sums them, and goes into the
bucket in which enough is reached. By count: 4 rounds of 256 buckets find the k-th largest logit exactly (CUT). By
weight: 8 rounds of 16 buckets find the logit at which the sum of weights (weights.py) of those at or above it reaches
top_p of the weight of all kept (LOW), and the weight above it (ABOVE), exactly.

Arrays as in sample_peak.py, which comes first; top_k: [S] int32, 0 keeps all; top_p, min_p: [S] float64. partial: [S,
tiles, buckets], int32 by count, int64 by weight. Tasks that do not ask for it, and tiles below the bucket, do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import number_of, order_of
from albireo.backends.cuda.kernels.parts.weights import (
    ABOVE,
    CUT,
    DRAWS,
    FIELDS,
    LOW,
    PEAK,
    TARGET,
    arrives_last,
    row_tile,
    weigh,
    weight_bits,
)
from albireo.backends.cuda.kernels.sample_adjust import tile_of

if TYPE_CHECKING:
    from albireo.backends.cuda.sampling import SampleWorkspace, SamplingTensors

#: Buckets of a round, and the bits of the order that it settles.
_BY_COUNT, _BY_WEIGHT = (256, 8), (16, 4)
_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def sample_search_kernel(
    logits,
    rows,
    flags,
    temperature,
    top_k,
    top_p,
    min_p,
    work,
    best,
    partial,
    state,
    arrived,
    stride,
    vocab,
    BY_COUNT: tl.constexpr,
    FIRST: tl.constexpr,
    SHIFT: tl.constexpr,
    BUCKETS: tl.constexpr,
    BITS: tl.constexpr,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
):
    task, tile, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    state += task * _FIELDS
    asks = tl.load(top_k + task) > 0 if BY_COUNT else tl.load(top_p + task) < 1.0
    if asks & (tl.load(state + DRAWS) != 0):
        low = (tl.load(state + CUT) if FIRST else tl.load(state + LOW)).to(tl.int32)
        partial += task * tiles * BUCKETS
        bucket = tl.arange(0, BUCKETS)
        if (tl.load(best + task * tiles + tile) >> 32).to(tl.int32) >= low:
            at = tile * TILE + tl.arange(0, TILE)
            changed = (tl.load(flags + task) & 1) != 0
            x = row_tile(logits, work, tl.load(rows + task), task, changed, at, stride, vocab)
            order = order_of(x)
            # below 2^32 where order >= low
            into = (order.to(tl.uint32, bitcast=True) - low.to(tl.uint32, bitcast=True)) >> SHIFT
            inside = (order >= low) & (into < BUCKETS) & (at < vocab)
            if BY_COUNT:
                seen = tl.histogram(tl.where(inside, into.to(tl.int32), 0), BUCKETS, mask=inside)
            else:
                peak = number_of(tl.load(state + PEAK).to(tl.int32))
                weight = weigh(x, peak, tl.load(temperature + task), tl.load(min_p + task), BITS)
                seen = tl.zeros((BUCKETS,), tl.int64)
                for i in tl.static_range(BUCKETS):
                    seen = tl.where(bucket == i, tl.sum(tl.where(inside & (into == i), weight, 0), 0), seen)
            tl.store(partial + tile * BUCKETS + bucket, seen)
        else:
            tl.store(partial + tile * BUCKETS + bucket, tl.zeros((BUCKETS,), partial.dtype.element_ty))
        if arrives_last(arrived + task, tiles):
            each = tl.arange(0, TILES)
            at = each[:, None] * BUCKETS + bucket[None, :]
            there = (each < tiles)[:, None] & (bucket >= 0)[None, :]
            seen = tl.sum(tl.load(partial + at, mask=there, other=0, cache_modifier=".cg"), 0).to(tl.int64)
            above = tl.zeros((), tl.int64) if FIRST else tl.load(state + ABOVE)
            whole = tl.sum(seen, 0)
            if not FIRST:
                target = tl.load(state + TARGET)
            elif BY_COUNT:
                target = tl.load(top_k + task).to(tl.int64)
            else:
                part = tl.load(top_p + task) * whole.to(tl.float64)
                target = part.to(tl.int64)
                target += (target.to(tl.float64) < part).to(tl.int64)
                target = tl.minimum(target, whole)
            # at or above each bucket's start; falls from bucket to bucket
            reached = above + whole - tl.cumsum(seen, 0) + seen
            chosen = tl.maximum(tl.sum((reached >= target).to(tl.int32), 0) - 1, 0)
            above += tl.sum(tl.where(bucket > chosen, seen, 0), 0)
            new = low.to(tl.int64) + (chosen.to(tl.int64) << SHIFT)
            tl.store(state + LOW, new)
            tl.store(state + ABOVE, above)
            tl.store(state + TARGET, target)
            if BY_COUNT and SHIFT == 0:
                tl.store(state + CUT, new)


def sample_search(logits: torch.Tensor, tasks: SamplingTensors, space: SampleWorkspace, by_count: bool) -> None:
    """by_count: top-k, else top-p."""
    vocab = logits.shape[1]
    tile = tile_of(vocab)
    tiles = triton.cdiv(vocab, tile)
    buckets, bits = _BY_COUNT if by_count else _BY_WEIGHT
    for shift in range(32 - bits, -1, -bits):
        sample_search_kernel[(space.num_tasks, tiles)](
            logits,
            tasks.rows,
            tasks.flags,
            tasks.temperature,
            tasks.top_k,
            tasks.top_p,
            tasks.min_p,
            space.work,
            space.best,
            space.partial.view(torch.int32) if by_count else space.partial,
            space.state,
            space.arrived,
            logits.stride(0),
            vocab,
            BY_COUNT=by_count,
            FIRST=shift == 32 - bits,
            SHIFT=shift,
            BUCKETS=buckets,
            BITS=weight_bits(vocab),
            TILES=triton.next_power_of_2(tiles),
            TILE=tile,
            num_warps=8,
        )


def aot_cases() -> list[AotCase]:
    signature = {name: "*i32" for name in ("rows", "flags", "top_k", "arrived")}
    signature |= {name: "*fp64" for name in ("temperature", "top_p", "min_p")}
    signature |= {"logits": "*fp32", "work": "*fp32", "best": "*i64", "state": "*i64", "stride": "i32", "vocab": "i32"}
    return [
        AotCase(
            f"sample_search.{'count' if by_count else 'weight'}",
            sample_search_kernel,
            {**signature, "partial": "*i32" if by_count else "*i64"},
            {
                "BY_COUNT": by_count,
                "FIRST": True,
                "SHIFT": 32 - bits,
                "BUCKETS": buckets,
                "BITS": weight_bits(128_256),
                "TILES": 32,
                "TILE": tile_of(128_256),
            },
            num_warps=8,
            aligned=("logits", "work", "stride", "vocab"),
            max_registers=200,
            max_shared=20 << 10,
            words={90: ("LDG.E.128",)},
        )
        for by_count, (buckets, bits) in ((True, _BY_COUNT), (False, _BY_WEIGHT))
    ]
