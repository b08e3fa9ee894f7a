"""sample_peak: the best logit of each task, and the token of those that take it.

logits [R, V], rows, flags, work [S, V]: as sample_adjust left them. temperature: [S] float64, 0 for a task that is
greedy. best: [S, tiles] int64, the best key (ordering.py) of each tile. out: [S] int32, the token of a greedy task; -1
where no logit is finite or one is NaN or +inf, which the host's sampler explains. state: [S, FIELDS] int64 of
weights.py, where a search begins. arrived: [S] int32, zeros before and after. One launch: the last tile of a row ends
it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import NO_KEY, NOTHING, key_of, number_of, order_of, place_of
from albireo.backends.cuda.kernels.parts.weights import CUT, DRAWS, FIELDS, PEAK, arrives_last, row_tile
from albireo.backends.cuda.kernels.sample_adjust import tile_of

if TYPE_CHECKING:
    from albireo.backends.cuda.sampling import SampleWorkspace, SamplingTensors

#: Order of the lowest finite float32: what is -inf is never kept.
_LOWEST = tl.constexpr(-2139095040)
_FIELDS = tl.constexpr(FIELDS)


@triton.jit
def sample_peak_kernel(
    logits,
    rows,
    flags,
    temperature,
    work,
    best,
    out,
    state,
    arrived,
    stride,
    vocab,
    TILES: tl.constexpr,
    TILE: tl.constexpr,
):
    task, tile, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    at = tile * TILE + tl.arange(0, TILE)
    changed = (tl.load(flags + task) & 1) != 0
    x = row_tile(logits, work, tl.load(rows + task), task, changed, at, stride, vocab)
    order = tl.where(at < vocab, order_of(x), NOTHING)
    most = tl.max(order, 0)
    best += task * tiles
    tl.store(best + tile, key_of(most, tl.min(tl.where(order == most, at, 0x7FFFFFFF), 0)))
    if arrives_last(arrived + task, tiles):
        each = tl.arange(0, TILES)
        key = tl.max(tl.load(best + each, mask=each < tiles, other=NO_KEY, cache_modifier=".cg"), 0)
        peak = (key >> 32).to(tl.int32)
        is_number = tl.abs(number_of(peak)) < float("inf")
        greedy = tl.load(temperature + task) == 0.0
        tl.store(out + task, tl.where(is_number & greedy, place_of(key), -1))
        state += task * _FIELDS
        tl.store(state + PEAK, peak.to(tl.int64))
        tl.store(state + CUT, tl.full((), _LOWEST, tl.int64))
        tl.store(state + DRAWS, tl.where(is_number & (greedy == 0), 1, 0).to(tl.int64))


def sample_peak(logits: torch.Tensor, tasks: SamplingTensors, space: SampleWorkspace, out: torch.Tensor) -> None:
    vocab = logits.shape[1]
    tile = tile_of(vocab)
    tiles = triton.cdiv(vocab, tile)
    sample_peak_kernel[(space.num_tasks, tiles)](
        logits,
        tasks.rows,
        tasks.flags,
        tasks.temperature,
        space.work,
        space.best,
        out,
        space.state,
        space.arrived,
        logits.stride(0),
        vocab,
        TILES=triton.next_power_of_2(tiles),
        TILE=tile,
        num_warps=8,
    )


def aot_cases() -> list[AotCase]:
    signature = {name: "*i32" for name in ("rows", "flags", "out", "arrived")}
    signature |= {"logits": "*fp32", "temperature": "*fp64", "work": "*fp32", "best": "*i64", "state": "*i64"}
    signature |= {"stride": "i32", "vocab": "i32"}
    return [
        AotCase(
            "sample_peak",
            sample_peak_kernel,
            signature,
            {"TILES": 32, "TILE": tile_of(128_256)},
            num_warps=8,
            aligned=("logits", "work", "stride", "vocab"),
            max_registers=96,
            max_shared=1 << 10,
            words={90: ("LDG.E.128",)},
        )
    ]
