"""sample_gather: of tasks with top_k or top_p, the logits at or above the bound.

Arrays as sample_peak.py left them. keys: [S, MOST] int64 gets the keys (ordering.py) of the candidates in no order, as
many as have room; num_found: [S] int32, zeros before, how many there are. stretches: [S, tiles * CRESTS] int32 is
scratch. One launch, PARTS programs a task: only the stretches that have a candidate are read, BATCH at a time.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import NOTHING, key_of, order_of
from albireo.backends.cuda.kernels.parts.waiting import OF_ALL
from albireo.backends.cuda.kernels.parts.weights import BOUND, FIELDS, row_tile
from albireo.backends.cuda.sample_call import ALIGNED, SampleCall, sample_case

#: Candidates that a task has room for.
MOST = 2048
#: Programs a task, and stretches that one reads at a time.
_PARTS, _BATCH = 4, 32
_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def sample_gather_kernel(
    logits,
    rows,
    flags,
    work,
    crests,
    stretches,
    num_found,
    keys,
    state,
    draws,
    stride,
    vocab,
    tiles,
    TILES: tl.constexpr,
    CRESTS: tl.constexpr,
    WIDTH: tl.constexpr,
    BATCH: tl.constexpr,
    MOST: tl.constexpr,
):
    task, part, parts = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    if tl.load(draws + task) >= OF_ALL:
        bound = tl.load(state + task * _FIELDS + BOUND).to(tl.int32)
        crests += task * tiles * CRESTS
        stretches += task * tiles * CRESTS
        each = tl.arange(0, TILES * CRESTS)
        crest = tl.load(crests + each, mask=each < tiles * CRESTS, other=NOTHING)
        is_high = (crest >= bound).to(tl.int32)
        num_high = tl.sum(is_high, 0)
        if part * BATCH < num_high:
            slot = tl.cumsum(is_high, 0) - 1
            tl.store(stretches + slot, each, mask=(is_high != 0) & ((slot // BATCH) % parts == part))
            tl.debug_barrier()
            row, changed = tl.load(rows + task), (tl.load(flags + task) & 1) != 0
            for start in range(part * BATCH, num_high, parts * BATCH):
                nth = start + tl.arange(0, BATCH)
                stretch = tl.load(stretches + nth, mask=nth < num_high, other=0)
                at = stretch[:, None] * WIDTH + tl.arange(0, WIDTH)[None, :]
                there = (at >= 0) & (nth < num_high)[:, None]
                x = row_tile(logits, work, row, task, changed, at, there, stride, vocab)
                order = tl.reshape(order_of(x), (BATCH * WIDTH,))
                # the bound is above -inf, which is what was not read
                kept = (order >= bound).to(tl.int32)
                first = tl.atomic_add(num_found + task, tl.sum(kept, 0), sem="relaxed")
                into = first + tl.cumsum(kept, 0) - 1
                key = key_of(order, tl.reshape(at, (BATCH * WIDTH,)))
                tl.store(keys + task.to(tl.int64) * MOST + into, key, mask=(kept != 0) & (into < MOST))


def sample_gather(call: SampleCall) -> None:
    sample_gather_kernel[(call.num_tasks, _PARTS)](
        **call.arguments(sample_gather_kernel), BATCH=_BATCH, MOST=MOST, num_warps=4, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    how = {"BATCH": _BATCH, "MOST": MOST}
    aligned = (*ALIGNED, "crests", "stretches")
    return [sample_case("sample_gather", sample_gather_kernel, 128, 10 << 10, ("LDG.E.128",), aligned, 4, **how)]
