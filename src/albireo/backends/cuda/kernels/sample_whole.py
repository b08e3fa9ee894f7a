"""sample_whole: what all logits of a row weigh, by tile, for tasks with top_p and no top_k.

Arrays as sample_peak.py left them; temperature, min_p: [S] float64. strict: [S, tiles] int64. One launch.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import number_of
from albireo.backends.cuda.kernels.parts.waiting import OF_ALL, programs_of, task_and_tile, waiting, width_of
from albireo.backends.cuda.kernels.parts.weights import FIELDS, PEAK, row_tile, weigh, weight_bits
from albireo.backends.cuda.kernels.sample_adjust import tile_of
from albireo.backends.cuda.sampling import SampleWorkspace, SamplingTensors

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


def sample_whole(logits: torch.Tensor, tasks: SamplingTensors, space: SampleWorkspace) -> None:
    vocab = logits.shape[1]
    tile = tile_of(vocab)
    tiles = triton.cdiv(vocab, tile)
    sample_whole_kernel[programs_of(space.num_tasks, tiles)](
        logits,
        tasks.rows,
        tasks.flags,
        tasks.temperature,
        tasks.min_p,
        space.work,
        space.strict,
        space.state,
        space.draws,
        logits.stride(0),
        vocab,
        tiles,
        space.num_tasks,
        BITS=weight_bits(vocab),
        TASKS=width_of(space.draws),
        TILE=tile,
        num_warps=8,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    signature = {name: "*i32" for name in ("rows", "flags", "draws")}
    signature |= {"temperature": "*fp64", "min_p": "*fp64", "logits": "*fp32", "work": "*fp32"}
    signature |= {"strict": "*i64", "state": "*i64"}
    signature |= {name: "i32" for name in ("stride", "vocab", "tiles", "num_tasks")}
    return [
        AotCase(
            "sample_whole",
            sample_whole_kernel,
            signature,
            {"BITS": weight_bits(128_256), "TASKS": 256, "TILE": tile_of(128_256)},
            num_warps=8,
            aligned=("logits", "work", "stride", "vocab"),
            max_registers=128,
            max_shared=1 << 10,
            words={90: ("LDG.E.128", "DFMA")},
        )
    ]
