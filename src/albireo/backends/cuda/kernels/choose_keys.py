"""choose_keys: which positions attention is to see: of each token the best by score, its own and those before it.

q: [T, H * D] float32, bfloat16 or float16, weights: [T, H] float32, or None: all are 1; rows any distance apart. kv: a
LayerKV [N, 1, P, D rounded up to 16] of numbers, in which this step's keys are written. ids: [T, count] int32, rows any
distance apart. scores: [any, L] float32, L at least the positions of the longest sequence: a step of more tokens takes
turns at it. Where kv has an entry for every so many positions (kv.every), entries are chosen, and L is of these; blocks
of it may be any distance apart. as_positions: ids are those of their positions, and behind them up to every - 1 that
have no entry yet; count, of which these are part, is a multiple of every less one.

score[s] = sum over h of weights[t, h] * max(q[t, h] . k[s], 0), in float32; of equals the first are chosen. ids are
ascending; behind the last, where a token has fewer positions (or entries) than count, -1. What is done for a token
depends on its sequence only. NaN comes before all numbers.

Two launches a turn. The first scores 64 positions a program. The second, one program a token, finds the bound that as
many scores reach by halving the range between the lowest and the highest that are left, each round a pass over the
token's scores, which stay in L2; a last pass notes what is above. Tokens that see all they could choose are scored by
nobody. Source: DeepSeek-AI 2025, DeepSeek-V3.2 (lightning indexer).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import ARCHITECTURES, AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import mma
from albireo.backends.cuda.kernels.parts.attention_tile import block_of
from albireo.backends.cuda.kernels.parts.best_of_row import bound_of_best
from albireo.backends.cuda.kernels.parts.kv_numbers import numbers_of
from albireo.backends.cuda.kernels.parts.ordering import order_of
from albireo.backends.cuda.kv import LayerKV
from albireo.backends.cuda.step import DeviceStep

#: Positions that are scored together, and those that a pass looks at together.
_SCORED, _TILE = 64, 1024
_LEAST_HEADS = 16  # of a product


@triton.jit(do_not_specialize=["first", "num_sequences"])
def score_keys_kernel(
    q,
    weights,
    k,
    positions,
    query_start,
    table_start,
    block_table,
    scores,
    first,
    num_sequences,
    q_stride,
    weights_stride,
    scores_stride,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    STORED_DIM: tl.constexpr,
    TAKEN: tl.constexpr,
    PAGE: tl.constexpr,
    BLOCKS: tl.constexpr,
    APART: tl.constexpr,
    EVERY: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
    SEQUENCES: tl.constexpr,
    BN: tl.constexpr,
):
    place = tl.program_id(0)
    token = first + place
    start = tl.program_id(1) * BN
    seen = (tl.load(positions + token) + 1) // EVERY
    if (seen > TAKEN) & (start < seen):
        each = tl.arange(0, SEQUENCES)
        ends = tl.load(query_start + 1 + each, mask=each < num_sequences, other=0x7FFFFFFF)
        sequence = tl.sum((ends <= token).to(tl.int32), axis=0)
        at = start + tl.arange(0, BN)
        is_there = at < seen
        table = block_table + tl.load(table_start + sequence)
        pages = tl.load(table + block_of(at, PAGE, BLOCKS), mask=is_there, other=0)
        heads = tl.arange(0, HEAD_BLOCK)
        dims = tl.arange(0, DIM_BLOCK)
        tile_q = tl.load(
            q + token.to(tl.int64) * q_stride + heads[:, None] * HEAD_DIM + dims[None, :],
            mask=(heads < HEADS)[:, None] & (dims < HEAD_DIM)[None, :],
            other=0.0,
        )
        tile_k = tl.load(
            k + (pages.to(tl.int64) * APART + at % PAGE * STORED_DIM)[:, None] + dims[None, :],
            mask=is_there[:, None] & (dims < STORED_DIM)[None, :],
            other=0.0,
        )
        met = mma(tile_q, tl.trans(numbers_of(tile_k, tile_q.dtype)), tl.zeros((HEAD_BLOCK, BN), tl.float32))
        met = tl.maximum(met, 0.0)
        if weights is not None:
            weight = tl.load(weights + token.to(tl.int64) * weights_stride + heads, mask=heads < HEADS, other=0.0)
            met = weight[:, None] * met
        total = tl.sum(met, axis=0)
        tl.store(scores + place.to(tl.int64) * scores_stride + at, total, mask=is_there)


@triton.jit(do_not_specialize=["first"])
def best_keys_kernel(
    scores,
    positions,
    ids,
    first,
    scores_stride,
    ids_stride,
    COUNT: tl.constexpr,
    TAKEN: tl.constexpr,
    EVERY: tl.constexpr,
    SPELLED: tl.constexpr,
    TILE: tl.constexpr,
):
    """SPELLED: each of TAKEN entries is SPELLED positions of COUNT, and what has none follows; 0: it is itself."""
    place = tl.program_id(0)
    token = first + place
    position = tl.load(positions + token)
    seen = (position + 1) // EVERY
    row = scores + place.to(tl.int64) * scores_stride
    to = ids + token.to(tl.int64) * ids_stride
    lanes = tl.arange(0, TILE)
    if seen <= TAKEN:
        num_seen = position + 1 if SPELLED else seen
        for start in range(0, COUNT, TILE):
            at = start + lanes
            tl.store(to + at, tl.where(at < num_seen, at, -1), mask=at < COUNT)
    else:
        low, left = bound_of_best(row, seen, TAKEN, TILE)
        taken = tl.zeros((), tl.int32)
        for start in range(0, seen, TILE):
            at = start + lanes
            is_there = at < seen
            order = order_of(tl.load(row + at, mask=is_there, other=0.0))
            is_equal = is_there & (order == low)
            nth = tl.cumsum(is_equal.to(tl.int32), axis=0)
            is_taken = (is_there & (order > low)) | (is_equal & (nth <= left))
            slot = taken + tl.cumsum(is_taken.to(tl.int32), axis=0) - 1
            if SPELLED:
                for each in range(0, SPELLED):
                    tl.store(to + slot * SPELLED + each, at * SPELLED + each, mask=is_taken)
            else:
                tl.store(to + slot, at, mask=is_taken)
            taken += tl.sum(is_taken.to(tl.int32), axis=0)
            left -= tl.sum(is_equal.to(tl.int32), axis=0)
        if SPELLED:
            for start in range(TAKEN * SPELLED, COUNT, TILE):
                at = start + lanes
                behind = at + (seen - TAKEN) * SPELLED
                tl.store(to + at, tl.where(behind <= position, behind, -1), mask=at < COUNT)


def choose_keys(
    q: torch.Tensor,
    weights: torch.Tensor | None,
    kv: LayerKV,
    ids: torch.Tensor,
    step: DeviceStep,
    block_group: int,
    scores: torch.Tensor,
    num_heads: int,
    head_dim: int,
    as_positions: bool = False,
) -> None:
    num_tokens, num_sequences, count = len(q), step.sizes["B"], ids.shape[1]
    taken = count // kv.every if as_positions else count
    turns = len(scores)
    tiles = triton.cdiv(scores.shape[1], _SCORED)
    for first in range(0, num_tokens, turns):
        rows = min(turns, num_tokens - first)
        score_keys_kernel[(rows, tiles)](
            q,
            weights,
            kv.k,
            step.positions,
            step.query_start,
            step.table_start[block_group],
            step.block_table,
            scores,
            first,
            num_sequences,
            q.stride(0),
            0 if weights is None else weights.stride(0),
            scores.stride(0),
            HEADS=num_heads,
            HEAD_DIM=head_dim,
            STORED_DIM=kv.k.shape[3],
            TAKEN=taken,
            PAGE=kv.k.shape[2],
            BLOCKS=kv.blocks,
            APART=kv.k.stride(0),
            EVERY=kv.every,
            HEAD_BLOCK=max(_LEAST_HEADS, triton.next_power_of_2(num_heads)),
            DIM_BLOCK=triton.next_power_of_2(kv.k.shape[3]),
            SEQUENCES=max(16, triton.next_power_of_2(num_sequences)),
            BN=_SCORED,
            num_warps=4,
            enable_fp_fusion=False,
        )
        best_keys_kernel[(rows,)](
            scores,
            step.positions,
            ids,
            first,
            scores.stride(0),
            ids.stride(0),
            COUNT=count,
            TAKEN=taken,
            EVERY=kv.every,
            SPELLED=kv.every if as_positions else 0,
            TILE=_TILE,
            num_warps=8,
            enable_fp_fusion=False,
        )


def aot_cases() -> list[AotCase]:
    of_step = {name: "*i32" for name in ("positions", "query_start", "table_start", "block_table")}
    strides = {name: "i32" for name in ("q_stride", "weights_stride", "scores_stride")}
    scoring = {"q": "*bf16", "weights": "*fp32", "k": "*bf16", **of_step, "scores": "*fp32", "first": "i32"}
    constants = {"HEADS": 64, "HEAD_DIM": 128, "STORED_DIM": 128, "TAKEN": 2048, "PAGE": 16, "HEAD_BLOCK": 64}
    constants |= {"BLOCKS": 1, "APART": 2048, "EVERY": 1}
    entries = {"PAGE": 4, "APART": 65536, "EVERY": 4}
    alike = entries | {"weights": None, "HEADS": 4, "HEAD_BLOCK": 16, "TAKEN": 512}
    best = {"scores": "*fp32", "positions": "*i32", "ids": "*i32"}
    best |= dict.fromkeys(("first", "scores_stride", "ids_stride"), "i32")
    return [
        *(
            AotCase(
                f"choose_keys.scores{name}",
                score_keys_kernel,
                {name: kind for name, kind in scoring.items() if name not in more} | {"num_sequences": "i32"} | strides,
                constants | {"DIM_BLOCK": 128, "SEQUENCES": 16, "BN": _SCORED} | more,
                num_warps=4,
                aligned=("q", "k", "scores", "q_stride", "scores_stride"),
                max_registers=168,
                max_shared=64 << 10,
                architectures=architectures,
            )
            for name, more, architectures in (
                ("", {}, ARCHITECTURES),
                (".entries", entries, (90,)),
                (".alike", alike, (90,)),
            )
        ),
        *(
            AotCase(
                f"choose_keys.best{name}",
                best_keys_kernel,
                best,
                {"COUNT": 2048, "TAKEN": 2048, "EVERY": 1, "SPELLED": 0, "TILE": _TILE} | more,
                num_warps=8,
                aligned=("scores", "ids", "scores_stride", "ids_stride"),
                max_registers=registers,
                max_shared=8 << 10,
                architectures=architectures,
            )
            for name, more, registers, architectures in (
                ("", {}, 64, ARCHITECTURES),
                (".positions", {"COUNT": 2063, "TAKEN": 128, "EVERY": 16, "SPELLED": 16}, 96, (90,)),
            )
        ),
    ]
