"""sample_adjust: what tasks forbid, favour and penalise, each in a row of its own.

Steps 2 to 6 of sampling/sampler.py, in its order and to its bits: tokens outside a mask, bad words, ends that come too
early (unless nothing else is left), bias, penalties.

logits: [R, V] float32. Of each task s: rows[s] its row, flags[s] bits CHANGES, MASKED, KEEPS_END. words: int32, the
step's own buffer; what has no fixed size lies somewhere in it. From mask_start[s] on a mask of ceil(V / 32) words, bit
i % 32 of word i // 32 says whether token i may come. From first_edit[s] on num_edits[s] ids that are changed, each
once; then as many kinds, bits below COUNT, and from it on how often the id is in the output; then as many biases, the
bits of float32. work: [S, V] float32 is written for tasks that change; alive: [S, tiles] int32 is
scratch. Two launches: masks by tile, then edits by task.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.sample_call import SampleCall, sample_case

#: Bits of flags.
CHANGES, MASKED, KEEPS_END = 1, 2, 4
#: Bits of kinds: in prompt or output; a bad word's end; an early end; has a bias. Counts are multiples of COUNT.
SEEN, BANNED, END, BIASED, COUNT = 1, 2, 4, 8, 16
_EDITS = 1024

_CHANGES, _MASKED, _KEEPS_END = tl.constexpr(CHANGES), tl.constexpr(MASKED), tl.constexpr(KEEPS_END)
_SEEN, _BANNED, _END, _BIASED, _COUNT = (tl.constexpr(bit) for bit in (SEEN, BANNED, END, BIASED, COUNT))


@triton.jit
def sample_mask_kernel(logits, rows, flags, words, mask_start, work, alive, stride, vocab, TILE: tl.constexpr):
    task, tile, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    flag = tl.load(flags + task)
    if (flag & _CHANGES) != 0:
        at = tile * TILE + tl.arange(0, TILE)
        x = tl.load(logits + tl.load(rows + task).to(tl.int64) * stride + at, mask=at < vocab, other=float("-inf"))
        if (flag & _MASKED) != 0:
            word = tl.load(words + tl.load(mask_start + task) + at // 32, mask=at < vocab, other=0)
            x = tl.where(((word >> (at % 32)) & 1) != 0, x, float("-inf"))
        tl.store(alive + task * tiles + tile, tl.sum((x != float("-inf")).to(tl.int32), 0))
        tl.store(work + task.to(tl.int64) * vocab + at, x, mask=at < vocab)


@triton.jit
def sample_edit_kernel(
    flags,
    first_edit,
    num_edits,
    words,
    repetition,
    frequency,
    presence,
    work,
    alive,
    vocab,
    tiles,
    TILES: tl.constexpr,
    EDITS: tl.constexpr,
):
    task = tl.program_id(0)
    flag = tl.load(flags + task)
    ids, last = words + tl.load(first_edit + task), tl.load(num_edits + task)
    kinds, biases = ids + last, ids + 2 * last
    work += task.to(tl.int64) * vocab
    forbidden = _BANNED | _END
    if (flag & _KEEPS_END) != 0:
        tile = tl.arange(0, TILES)
        left = tl.sum(tl.load(alive + task * tiles + tile, mask=tile < tiles, other=0), 0)
        for start in range(0, last, EDITS):
            at = start + tl.arange(0, EDITS)
            kind = tl.load(kinds + at, mask=at < last, other=0)
            x = tl.load(work + tl.load(ids + at, mask=at < last, other=0))
            left -= tl.sum((((kind & forbidden) != 0) & (x != float("-inf"))).to(tl.int32), 0)
        forbidden = tl.where(left == 0, _BANNED, forbidden)
    if (flag & _CHANGES) != 0:
        for start in range(0, last, EDITS):
            at = start + tl.arange(0, EDITS)
            token = tl.load(ids + at, mask=at < last, other=0)
            kind = tl.load(kinds + at, mask=at < last, other=0)
            x = tl.load(work + token, mask=at < last, other=0.0)
            x = tl.where((kind & forbidden) != 0, float("-inf"), x)
            bias = tl.load(biases + at, mask=at < last, other=0).to(tl.float32, bitcast=True)
            x = tl.where((kind & _BIASED) != 0, x + bias, x)
            penalty = tl.full((EDITS,), 0.0, tl.float32) + tl.load(repetition + task)
            x = tl.where((kind & _SEEN) != 0, tl.where(x > 0.0, tl.div_rn(x, penalty), x * penalty), x)
            # each product and difference is rounded on its own: launched without fused multiply-add
            less = x - tl.load(frequency + task) * (kind // _COUNT).to(tl.float32)
            x = tl.where(kind >= _COUNT, less - tl.load(presence + task), x)
            tl.store(work + token, x, mask=at < last)


def sample_adjust(call: SampleCall) -> None:
    sample_mask_kernel[(call.num_tasks, call.tiles)](
        **call.arguments(sample_mask_kernel), num_warps=8, enable_fp_fusion=False
    )
    sample_edit_kernel[(call.num_tasks,)](
        **call.arguments(sample_edit_kernel), EDITS=_EDITS, num_warps=8, enable_fp_fusion=False
    )


def aot_cases() -> list[AotCase]:
    return [
        sample_case("sample_adjust.mask", sample_mask_kernel, 96, 1 << 10, ("LDG.E.128", "STG.E.128")),
        sample_case("sample_adjust.edit", sample_edit_kernel, 96, 1 << 10, aligned=(), EDITS=_EDITS),
    ]
