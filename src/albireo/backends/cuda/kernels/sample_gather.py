"""sample_gather: of tasks with top_k or top_p, the logits at or above the bound, and the weight of all.

Arrays as sample_peak.py left them; temperature, min_p: [S] float64. keys: [S, MOST] int64 gets the keys (ordering.py)
of the candidates in no order, as many as have room; num_found: [S] int32, zeros before, how many there are. strict:
[S, tiles] int64 gets each tile's weight where top_p is asked of the whole row. One launch: with top_k a tile reads the
stretches that have a candidate and no others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import NOTHING, key_of, number_of, order_of
from albireo.backends.cuda.kernels.parts.weights import BOUND, DRAWS, FIELDS, PEAK, row_tile, weigh, weight_bits
from albireo.backends.cuda.kernels.sample_adjust import tile_of
from albireo.backends.cuda.kernels.sample_peak import CRESTS

if TYPE_CHECKING:
    from albireo.backends.cuda.sampling import SampleWorkspace, SamplingTensors

#: Candidates that a task has room for.
MOST = 2048
_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def sample_gather_kernel(
    logits,
    rows,
    flags,
    temperature,
    top_k,
    top_p,
    min_p,
    work,
    best,
    crests,
    num_found,
    keys,
    strict,
    state,
    stride,
    vocab,
    BITS: tl.constexpr,
    TILE: tl.constexpr,
    CRESTS: tl.constexpr,
    MOST: tl.constexpr,
):
    task, tile, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    state += task * _FIELDS
    k = tl.load(top_k + task)
    if ((k > 0) | (tl.load(top_p + task) < 1.0)) & (tl.load(state + DRAWS) != 0):
        bound = tl.load(state + BOUND).to(tl.int32)
        reads_all = k == 0
        if reads_all | ((tl.load(best + task * tiles + tile) >> 32) >= bound):
            stretch = tl.arange(0, CRESTS)
            crest = tl.load(crests + (task * tiles + tile) * CRESTS + stretch)
            at = tile * TILE + stretch[:, None] * (TILE // CRESTS) + tl.arange(0, TILE // CRESTS)[None, :]
            there = (at >= 0) & (crest >= tl.where(reads_all, NOTHING, bound))[:, None]
            changed = (tl.load(flags + task) & 1) != 0
            x = row_tile(logits, work, tl.load(rows + task), task, changed, at, there, stride, vocab)
            x = tl.reshape(x, (TILE,))
            if reads_all:
                peak = number_of(tl.load(state + PEAK).to(tl.int32))
                weight = weigh(x, peak, tl.load(temperature + task), tl.load(min_p + task), BITS)
                tl.store(strict + task * tiles + tile, tl.sum(weight, 0))
            order = order_of(x)
            # the bound is above -inf, which is what was not read
            kept = order >= bound
            count = tl.sum(kept.to(tl.int32), 0)
            if count > 0:
                first = tl.atomic_add(num_found + task, count, sem="relaxed")
                slot = first + tl.cumsum(kept.to(tl.int32), 0) - 1
                place = tile * TILE + tl.arange(0, TILE)
                tl.store(keys + task.to(tl.int64) * MOST + slot, key_of(order, place), mask=kept & (slot < MOST))


def sample_gather(logits: torch.Tensor, tasks: SamplingTensors, space: SampleWorkspace) -> None:
    vocab = logits.shape[1]
    tile = tile_of(vocab)
    sample_gather_kernel[(space.num_tasks, triton.cdiv(vocab, tile))](
        logits,
        tasks.rows,
        tasks.flags,
        tasks.temperature,
        tasks.top_k,
        tasks.top_p,
        tasks.min_p,
        space.work,
        space.best,
        space.crests,
        space.num_found,
        space.keys,
        space.strict,
        space.state,
        logits.stride(0),
        vocab,
        BITS=weight_bits(vocab),
        TILE=tile,
        CRESTS=CRESTS,
        MOST=MOST,
        num_warps=8,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {name: "*i32" for name in ("rows", "flags", "top_k", "crests", "num_found")}
    signature |= {name: "*fp64" for name in ("temperature", "top_p", "min_p")}
    signature |= {"logits": "*fp32", "work": "*fp32", "best": "*i64", "keys": "*i64", "strict": "*i64", "state": "*i64"}
    signature |= {"stride": "i32", "vocab": "i32"}
    return [
        AotCase(
            "sample_gather",
            sample_gather_kernel,
            signature,
            {"BITS": weight_bits(128_256), "TILE": tile_of(128_256), "CRESTS": CRESTS, "MOST": MOST},
            num_warps=8,
            aligned=("logits", "work", "stride", "vocab"),
            max_registers=128,
            max_shared=20 << 10,
            words={90: ("LDG.E.128", "DFMA")},
        )
    ]
