"""choose_blocks: choose_keys of blocks: of each token and head the blocks of positions that a KV head is to see.

q: [T, H * D] float32, bfloat16 or float16, rows any distance apart. kv: a LayerKV [N, 1, P, D rounded up to 16] of
numbers, in which this step's keys are written. ids: [T, H * count] int32, a list for each head one behind the other,
rows any distance apart. scores: [any, L] float32, L at least H times the blocks of the longest sequence: a step of more
tokens takes turns at it. count: a multiple of block.

Blocks begin at multiples of block. One is worth the largest q[t, h] . k[s] in float32 of its positions up to the
token's own; the last `nearest` are always chosen, and the best others, of equals the first, until there are count /
block. ids are positions, ascending, up to the token's own; behind the last, -1. All heads of a token have as many. NaN
comes before all numbers. What is done for a token depends on its sequence only.

Two launches a turn. The first meets the positions of a block, a program. The second, one program a token and head,
finds the bound as choose_keys.py does. Tokens that see all they could choose are scored by nobody. Source: MiniMax
2026, MiniMax M3 (sparse attention).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import mma
from albireo.backends.cuda.kernels.parts.best_of_row import bound_of_best
from albireo.backends.cuda.kernels.parts.kv_numbers import numbers_of
from albireo.backends.cuda.kernels.parts.ordering import NOTHING, number_of, order_of
from albireo.backends.cuda.kv import LayerKV
from albireo.backends.cuda.step import DeviceStep

#: Positions that meet queries at once, at most, and blocks that a pass looks at together.
_MET, _TILE = 64, 256
_LEAST_HEADS = 16  # of a product
_MOST_ROWS = 65535  # of a grid's second axis; there may be more blocks


@triton.jit(do_not_specialize=["first", "num_sequences"])
def score_blocks_kernel(
    q,
    k,
    positions,
    query_start,
    table_start,
    block_table,
    scores,
    first,
    num_sequences,
    q_stride,
    scores_stride,
    HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    STORED_DIM: tl.constexpr,
    COUNT: tl.constexpr,
    UNIT: tl.constexpr,
    PAGE: tl.constexpr,
    HEAD_BLOCK: tl.constexpr,
    DIM_BLOCK: tl.constexpr,
    SEQUENCES: tl.constexpr,
    BN: tl.constexpr,
):
    block = tl.program_id(0)
    place = tl.program_id(1)
    token = first + place
    seen = tl.load(positions + token) + 1
    if (seen > COUNT) & (block * UNIT < seen):
        each = tl.arange(0, SEQUENCES)
        ends = tl.load(query_start + 1 + each, mask=each < num_sequences, other=0x7FFFFFFF)
        sequence = tl.sum((ends <= token).to(tl.int32), axis=0)
        table = block_table + tl.load(table_start + sequence)
        heads = tl.arange(0, HEAD_BLOCK)
        dims = tl.arange(0, DIM_BLOCK)
        tile_q = tl.load(
            q + token.to(tl.int64) * q_stride + heads[:, None] * HEAD_DIM + dims[None, :],
            mask=(heads < HEADS)[:, None] & (dims < HEAD_DIM)[None, :],
            other=0.0,
        )
        worth = tl.full((HEAD_BLOCK,), NOTHING, tl.int32)
        end = tl.minimum(block * UNIT + UNIT, seen)
        for start in range(0, UNIT, BN):
            at = block * UNIT + start + tl.arange(0, BN)
            is_there = at < end
            pages = tl.load(table + at // PAGE, mask=is_there, other=0)
            tile_k = tl.load(
                k + (pages.to(tl.int64) * PAGE + at % PAGE)[:, None] * STORED_DIM + dims[None, :],
                mask=is_there[:, None] & (dims < STORED_DIM)[None, :],
                other=0.0,
            )
            met = mma(tile_q, tl.trans(numbers_of(tile_k, tile_q.dtype)), tl.zeros((HEAD_BLOCK, BN), tl.float32))
            order = tl.where(is_there[None, :], order_of(met), NOTHING)
            worth = tl.maximum(worth, tl.max(order, axis=1))
        num_blocks = (seen + UNIT - 1) // UNIT
        to = scores + place.to(tl.int64) * scores_stride + heads * num_blocks + block
        tl.store(to, number_of(worth), mask=heads < HEADS)


@triton.jit(do_not_specialize=["first"])
def best_blocks_kernel(
    scores,
    positions,
    ids,
    first,
    scores_stride,
    ids_stride,
    COUNT: tl.constexpr,
    UNIT: tl.constexpr,
    NEAREST: tl.constexpr,
    TILE: tl.constexpr,
    UNIT_BLOCK: tl.constexpr,
):
    place = tl.program_id(0)
    head = tl.program_id(1)
    token = first + place
    seen = tl.load(positions + token) + 1
    to = ids + token.to(tl.int64) * ids_stride + head * COUNT
    lanes = tl.arange(0, TILE)
    inside = tl.arange(0, UNIT_BLOCK)
    if seen <= COUNT:
        for start in range(0, COUNT, TILE):
            at = start + lanes
            tl.store(to + at, tl.where(at < seen, at, -1), mask=at < COUNT)
    else:
        num_blocks = (seen + UNIT - 1) // UNIT
        row = scores + place.to(tl.int64) * scores_stride + head * num_blocks
        # those that are chosen by what they are worth, among as many
        wanted: tl.constexpr = COUNT // UNIT - NEAREST
        others = num_blocks - NEAREST
        low, left = tl.full((), 0x7FFFFFFF, tl.int32), tl.zeros((), tl.int32)
        if wanted > 0:
            low, left = bound_of_best(row, others, wanted, TILE)
        taken = tl.zeros((), tl.int32)
        for start in range(0, num_blocks, TILE):
            block = start + lanes
            is_other = block < others
            order = order_of(tl.load(row + block, mask=is_other, other=0.0))
            is_equal = is_other & (order == low)
            nth = tl.cumsum(is_equal.to(tl.int32), axis=0)
            is_taken = (is_other & (order > low)) | (is_equal & (nth <= left))
            is_taken = is_taken | ((block >= others) & (block < num_blocks))
            slot = taken + tl.cumsum(is_taken.to(tl.int32), axis=0) - 1
            tl.store(to + slot * UNIT, block, mask=is_taken)
            taken += tl.sum(is_taken.to(tl.int32), axis=0)
            left -= tl.sum(is_equal.to(tl.int32), axis=0)
        tl.debug_barrier()
        # each number of a block makes way for its positions
        for slot in range(0, COUNT // UNIT):
            at = tl.load(to + slot * UNIT) * UNIT + inside
            tl.debug_barrier()
            tl.store(to + slot * UNIT + inside, tl.where(at < seen, at, -1), mask=inside < UNIT)


def choose_blocks(
    q: torch.Tensor,
    kv: LayerKV,
    ids: torch.Tensor,
    step: DeviceStep,
    block_group: int,
    scores: torch.Tensor,
    num_heads: int,
    head_dim: int,
    block: int,
    nearest: int,
) -> None:
    num_tokens, num_sequences, count = len(q), step.sizes["B"], ids.shape[1] // num_heads
    turns, blocks = min(len(scores), _MOST_ROWS), scores.shape[1] // num_heads
    for first in range(0, num_tokens, turns):
        rows = min(turns, num_tokens - first)
        score_blocks_kernel[(blocks, rows)](
            q,
            kv.k,
            step.positions,
            step.query_start,
            step.table_start[block_group],
            step.block_table,
            scores,
            first,
            num_sequences,
            q.stride(0),
            scores.stride(0),
            HEADS=num_heads,
            HEAD_DIM=head_dim,
            STORED_DIM=kv.k.shape[3],
            COUNT=count,
            UNIT=block,
            PAGE=kv.k.shape[2],
            HEAD_BLOCK=max(_LEAST_HEADS, triton.next_power_of_2(num_heads)),
            DIM_BLOCK=triton.next_power_of_2(kv.k.shape[3]),
            SEQUENCES=max(16, triton.next_power_of_2(num_sequences)),
            BN=_met(block),
            num_warps=4,
            enable_fp_fusion=False,
        )
        best_blocks_kernel[(rows, num_heads)](
            scores,
            step.positions,
            ids,
            first,
            scores.stride(0),
            ids.stride(0),
            COUNT=count,
            UNIT=block,
            NEAREST=nearest,
            TILE=_TILE,
            UNIT_BLOCK=triton.next_power_of_2(block),
            num_warps=4,
            enable_fp_fusion=False,
        )


def scores_of(num_heads: int, block: int, max_positions: int) -> int:
    """Numbers of scores that a token needs."""
    return num_heads * -(-max_positions // block)


def _met(block: int) -> int:
    return min(_MET, max(16, int(triton.next_power_of_2(block))))


def aot_cases() -> list[AotCase]:
    of_step = {name: "*i32" for name in ("positions", "query_start", "table_start", "block_table")}
    scoring = {"q": "*bf16", "k": "*bf16", **of_step, "scores": "*fp32"}
    scoring |= dict.fromkeys(("first", "num_sequences", "q_stride", "scores_stride"), "i32")
    sizes = {"COUNT": 2048, "UNIT": 128}
    constants = {"HEADS": 4, "HEAD_DIM": 128, "STORED_DIM": 128, "PAGE": 16, "HEAD_BLOCK": 16, "DIM_BLOCK": 128}
    return [
        AotCase(
            "choose_blocks.scores",
            score_blocks_kernel,
            scoring,
            sizes | constants | {"SEQUENCES": 16, "BN": _MET},
            num_warps=4,
            aligned=("q", "k", "scores", "q_stride", "scores_stride"),
            max_registers=96,
            max_shared=64 << 10,
        ),
        AotCase(
            "choose_blocks.best",
            best_blocks_kernel,
            {"scores": "*fp32", "positions": "*i32", "ids": "*i32"}
            | dict.fromkeys(("first", "scores_stride", "ids_stride"), "i32"),
            sizes | {"NEAREST": 1, "TILE": _TILE, "UNIT_BLOCK": 128},
            num_warps=4,
            aligned=("scores", "ids", "scores_stride", "ids_stride"),
            max_registers=96,
            max_shared=8 << 10,
        ),
    ]
