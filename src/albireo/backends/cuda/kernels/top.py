"""top: the best few logits of each row, best first, without sorting.

logits: [G, V] float32, any stride between rows. counts: [G] int32, 0 to TOP_LOGITS, how many are wanted; 0 (a padding
row) finds none. ids: [G, TOP_LOGITS] int32, values: [G, TOP_LOGITS] float32, contiguous: of equals the lowest id first,
NaN before all numbers, -1 and -inf behind the last there is.

Two launches. The first notes the best of each stretch of 64 logits, or where one is wanted of each tile. The best few
stretches by their best hold the best few logits: the second, one program a row, reads these stretches only, finds the
bound by halving the range of what is in registers (about 15 counts), and ranks the winners by counting those before
them. What is done for a row depends on its logits and its count only.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.ordering import NO_KEY, NOTHING, key_of, least_of_best, order_of, place_of
from albireo.graph.op_numbers import TOP_LOGITS

_TILE, _STRETCH = 4096, 64
#: Winners are ranked in a square of this side; as many stretches are read.
_RANKED = int(triton.next_power_of_2(TOP_LOGITS))


@triton.jit
def top_tiles_kernel(
    logits, counts, keys, stride, vocab, row_keys, NUM: tl.constexpr, TILE: tl.constexpr, STRETCH: tl.constexpr
):
    """The best key of each stretch, or of the tile where one is wanted; NO_KEY of a stretch behind the last logit."""
    row, tile = tl.program_id(0), tl.program_id(1)
    wanted = tl.minimum(tl.load(counts + row), NUM)
    at = tile * TILE + tl.arange(0, TILE)
    x = tl.load(logits + row.to(tl.int64) * stride + at, mask=at < vocab, other=0.0)
    order = tl.where(at < vocab, order_of(x), NOTHING)
    keys += row.to(tl.int64) * row_keys
    if wanted == 1:
        best = tl.max(order, 0)
        tl.store(keys + tile, key_of(best, tl.min(tl.where(order == best, at, 0x7FFFFFFF), 0)))
    elif wanted > 1:
        parts: tl.constexpr = TILE // STRETCH
        part = tl.reshape(order, (parts, STRETCH))
        best = tl.max(part, 1)
        of_part = tl.arange(0, STRETCH)[None, :]
        place = tl.min(tl.where(part == best[:, None], of_part, STRETCH), 1)
        first = tile * TILE + tl.arange(0, parts) * STRETCH
        key = tl.where(first < vocab, key_of(best, first + place), NO_KEY)
        tl.store(keys + tile * parts + tl.arange(0, parts), key)


@triton.jit
def top_rows_kernel(
    logits,
    counts,
    keys,
    ids,
    values,
    stride,
    vocab,
    tiles,
    row_keys,
    NUM: tl.constexpr,
    TILES: tl.constexpr,
    KEYS: tl.constexpr,
    RANKED: tl.constexpr,
    STRETCH: tl.constexpr,
):
    """The best of a row, ranked. Behind its keys are RANKED places of scratch."""
    row = tl.program_id(0)
    wanted = tl.minimum(tl.load(counts + row), NUM)
    logits += row.to(tl.int64) * stride
    keys += row.to(tl.int64) * row_keys
    ids += row * NUM
    values += row * NUM
    take = tl.minimum(wanted, vocab)
    if wanted == 1:
        at = tl.arange(0, TILES)
        best = tl.max(tl.load(keys + at, mask=at < tiles, other=NO_KEY), 0)
        tl.store(ids, place_of(best))
        tl.store(values, tl.load(logits + place_of(best)))
    elif wanted > 1:
        scratch = keys + row_keys - RANKED
        place = tl.arange(0, RANKED)
        at = tl.arange(0, KEYS)
        key = tl.load(keys + at, mask=at * STRETCH < vocab, other=NO_KEY)
        num_read = tl.minimum(take, tl.cdiv(vocab, STRETCH))
        bound = least_of_best(key, num_read, tl.full((), NO_KEY, tl.int64))
        high = key >= bound
        tl.store(scratch + tl.cumsum(high.to(tl.int32), 0) - 1, at.to(tl.int64) * STRETCH, mask=high)
        tl.debug_barrier()
        first = tl.load(scratch + place, mask=place < num_read, other=vocab).to(tl.int32)
        token = first[:, None] + tl.arange(0, STRETCH)[None, :]
        x = tl.load(logits + token, mask=token < vocab, other=0.0)
        key = tl.reshape(tl.where(token < vocab, key_of(order_of(x), token), NO_KEY), (RANKED * STRETCH,))
        # where fewer stretches are read than logits wanted, all are
        bound = least_of_best(key, take, tl.where(num_read < take, NO_KEY, bound))
        kept = key >= bound
        tl.debug_barrier()
        tl.store(scratch + tl.cumsum(kept.to(tl.int32), 0) - 1, key, mask=kept)
        tl.debug_barrier()
        won = tl.load(scratch + place, mask=place < take, other=NO_KEY)
        rank = tl.sum((won[None, :] > won[:, None]).to(tl.int32), 1)
        token = place_of(won)
        tl.store(ids + rank, token, mask=place < take)
        tl.store(values + rank, tl.load(logits + token, mask=place < take), mask=place < take)
    place = tl.arange(0, RANKED)
    behind = (place >= take) & (place < NUM)
    tl.store(ids + place, tl.full((RANKED,), -1, tl.int32), mask=behind)
    tl.store(values + place, tl.full((RANKED,), float("-inf"), tl.float32), mask=behind)


def top_workspace(rows: int, vocab: int) -> int:
    """How many int64 of workspace top() needs."""
    return rows * _row_keys(vocab)


def top(
    logits: torch.Tensor, counts: torch.Tensor, ids: torch.Tensor, values: torch.Tensor, workspace: torch.Tensor
) -> None:
    """workspace: int64, top_workspace() of them; what it holds does not matter."""
    rows, vocab = logits.shape
    tiles, row_keys = triton.cdiv(vocab, _TILE), _row_keys(vocab)
    top_tiles_kernel[(rows, tiles)](
        logits,
        counts,
        workspace,
        logits.stride(0),
        vocab,
        row_keys,
        NUM=TOP_LOGITS,
        TILE=_TILE,
        STRETCH=_STRETCH,
        num_warps=8,
        enable_fp_fusion=False,
    )
    top_rows_kernel[(rows,)](
        logits,
        counts,
        workspace,
        ids,
        values,
        logits.stride(0),
        vocab,
        tiles,
        row_keys,
        NUM=TOP_LOGITS,
        TILES=triton.next_power_of_2(tiles),
        KEYS=triton.next_power_of_2(tiles) * (_TILE // _STRETCH),
        RANKED=_RANKED,
        STRETCH=_STRETCH,
        num_warps=8,
        enable_fp_fusion=False,
    )


def _row_keys(vocab: int) -> int:
    return int(triton.cdiv(vocab, _TILE)) * (_TILE // _STRETCH) + _RANKED


def aot_cases() -> list[AotCase]:
    tiles = {"logits": "*fp32", "counts": "*i32", "keys": "*i64", "stride": "i32", "vocab": "i32", "row_keys": "i32"}
    rows = {**tiles, "ids": "*i32", "values": "*fp32", "tiles": "i32"}
    # 32 tiles: a vocabulary of 128 thousand
    sizes = {"NUM": TOP_LOGITS, "TILES": 32, "KEYS": 2048, "RANKED": _RANKED, "STRETCH": _STRETCH}
    return [
        AotCase(
            "top.tiles",
            top_tiles_kernel,
            tiles,
            {"NUM": TOP_LOGITS, "TILE": _TILE, "STRETCH": _STRETCH},
            num_warps=8,
            aligned=("logits", "stride", "vocab"),
            max_registers=64,
            max_shared=20 << 10,
            words={90: ("LDG.E.128",)},
        ),
        # of 240 or 255 registers one program fits a multiprocessor
        AotCase("top.rows", top_rows_kernel, rows, sizes, num_warps=8, max_registers=255, max_shared=40 << 10),
    ]
