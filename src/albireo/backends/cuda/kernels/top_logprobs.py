"""top_logprobs: log-probabilities and ranks of one token and of the best ones, in the model's own distribution.

logits: [R, V] float32 raw, any stride between rows. rows, tokens: [S] int32, each task's row and the token it is asked
of; -1 - i: the one that drawn[i] says; a -1 there is answered with what means nothing. best: [R, TOP_LOGITS] float32,
what top finds of each row, -inf behind the last. logprobs: [S, 1 + TOP_LOGITS] float64, ranks: [S, 1 + TOP_LOGITS]
int32: of the token, then of the best; rank = 1 + the number of tokens with a larger logit. partial: [S, tiles, 2]
float64 and above: [S, tiles] int32 are scratch. Two launches.

Sums of exp are float64, of a tile relative to the tile's best logit, then of the tiles in order: within 1e-13 of the
host's (sampling/logprobs.py). A row that holds NaN or +inf, or nothing above -inf, gives a log-probability that is NaN.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.graph.op_numbers import TOP_LOGITS

_TILE = 4096


@triton.jit
def asked_of(token, drawn):
    """The token itself, or the one that was drawn."""
    given = tl.load(token)
    return tl.maximum(tl.where(given < 0, tl.load(drawn + tl.maximum(-1 - given, 0)), given), 0)


@triton.jit
def logprob_tiles_kernel(logits, rows, tokens, drawn, partial, above, stride, vocab, TILE: tl.constexpr):
    task, tile, tiles = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    logits += tl.load(rows + task).to(tl.int64) * stride
    at = tile * TILE + tl.arange(0, TILE)
    x = tl.load(logits + at, mask=at < vocab, other=float("-inf"))
    own = tl.load(logits + asked_of(tokens + task, drawn))
    peak = tl.max(x, 0)
    # of a tile of -inf alone nothing is subtracted
    base = tl.where(peak == float("-inf"), 0.0, peak)
    total = tl.sum(tl.exp(x.to(tl.float64) - base.to(tl.float64)), 0)
    partial += (task * tiles + tile) * 2
    tl.store(partial, base.to(tl.float64))
    tl.store(partial + 1, total)
    tl.store(above + task * tiles + tile, tl.sum((x > own).to(tl.int32), 0))


@triton.jit
def logprob_rows_kernel(
    logits,
    rows,
    tokens,
    drawn,
    best,
    partial,
    above,
    logprobs,
    ranks,
    stride,
    tiles,
    TILES: tl.constexpr,
    NUM: tl.constexpr,
    PLACES: tl.constexpr,
):
    task = tl.program_id(0)
    each = tl.arange(0, TILES)
    there = each < tiles
    partial += task * tiles * 2
    base = tl.load(partial + each * 2, mask=there, other=float("-inf"))
    total = tl.load(partial + each * 2 + 1, mask=there, other=0.0)
    peak = tl.max(base, 0)
    log_total = peak + tl.log(tl.sum(total * tl.exp(base - peak), 0))
    rank = 1 + tl.sum(tl.load(above + task * tiles + each, mask=there, other=0), 0)
    row = tl.load(rows + task)
    own = tl.load(logits + row.to(tl.int64) * stride + asked_of(tokens + task, drawn))
    logprobs += task * (NUM + 1)
    ranks += task * (NUM + 1)
    tl.store(logprobs, own.to(tl.float64) - log_total)
    tl.store(ranks, rank)
    place = tl.arange(0, PLACES)
    value = tl.load(best + row * NUM + place, mask=place < NUM, other=float("-inf"))
    tl.store(logprobs + 1 + place, value.to(tl.float64) - log_total, mask=place < NUM)
    larger = tl.sum((value[None, :] > value[:, None]).to(tl.int32), 1)
    tl.store(ranks + 1 + place, 1 + larger, mask=place < NUM)


def top_logprobs_workspace(tasks: int, vocab: int) -> tuple[int, int]:
    """How many float64 of partial and int32 of above top_logprobs() needs."""
    tiles = tasks * int(triton.cdiv(vocab, _TILE))
    return 2 * tiles, tiles


def top_logprobs(
    logits: torch.Tensor,
    rows: torch.Tensor,
    tokens: torch.Tensor,
    drawn: torch.Tensor,
    best: torch.Tensor,
    logprobs: torch.Tensor,
    ranks: torch.Tensor,
    partial: torch.Tensor,
    above: torch.Tensor,
) -> None:
    tasks, vocab = rows.shape[0], logits.shape[1]
    tiles = triton.cdiv(vocab, _TILE)
    logprob_tiles_kernel[(tasks, tiles)](
        logits,
        rows,
        tokens,
        drawn,
        partial,
        above,
        logits.stride(0),
        vocab,
        TILE=_TILE,
        num_warps=8,
        enable_fp_fusion=False,
    )
    logprob_rows_kernel[(tasks,)](
        logits,
        rows,
        tokens,
        drawn,
        best,
        partial,
        above,
        logprobs,
        ranks,
        logits.stride(0),
        tiles,
        TILES=triton.next_power_of_2(tiles),
        NUM=TOP_LOGITS,
        PLACES=triton.next_power_of_2(TOP_LOGITS),
        num_warps=8,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    tiles = {
        "logits": "*fp32",
        "rows": "*i32",
        "tokens": "*i32",
        "drawn": "*i32",
        "partial": "*fp64",
        "above": "*i32",
        "stride": "i32",
    }
    rows = {**tiles, "best": "*fp32", "logprobs": "*fp64", "ranks": "*i32", "tiles": "i32"}
    sizes = {"TILES": 32, "NUM": TOP_LOGITS, "PLACES": 128}
    return [
        AotCase(
            "top_logprobs.tiles",
            logprob_tiles_kernel,
            {**tiles, "vocab": "i32"},
            {"TILE": _TILE},
            num_warps=8,
            aligned=("logits", "stride", "vocab"),
            max_registers=128,
            max_shared=1 << 10,
            words={90: ("LDG.E.128", "DFMA")},
        ),
        AotCase("top_logprobs.rows", logprob_rows_kernel, rows, sizes, num_warps=8, max_registers=128, max_shared=4096),
    ]
