"""A tile of keys and values, met by a tile of query rows: what attention's loops do again and again.

Used inside kernels/attention.py, whose contract says what the numbers are.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import mma, round_to
from albireo.backends.cuda.kernels.parts.by_distance import add_by_distance
from albireo.backends.cuda.kernels.parts.kv_numbers import numbers_of, where_it_is
from albireo.backends.cuda.kernels.parts.softmax import LOG2E, merge, power_of_two, shift_of

#: Columns of the smallest product there is.
ONES = tl.constexpr(16)


@triton.jit
def attend(
    start, pages, offsets, m, l, acc, total_m, total_l, total,  # noqa: E741
    tile_q, turned_q, ones, positions, last_seen, dims, k, v, k_scale, v_scale, kv_head, context, scale, softcap,
    window, row_slopes, distances, from_rows, from_keys, columns, heads, row_places, keys_start, from_keys_stride,
    KV_HEADS: tl.constexpr, STORED_DIM: tl.constexpr, VALUE_DIM: tl.constexpr, TURNED_DIM: tl.constexpr,
    PAGE: tl.constexpr, BN: tl.constexpr, SPLIT: tl.constexpr, QK_TYPE: tl.constexpr, PV_TYPE: tl.constexpr,
    CODES: tl.constexpr, WINDOW: tl.constexpr, SOFTCAP: tl.constexpr, BOTH_WAYS: tl.constexpr, ENDS: tl.constexpr,
    MASKED: tl.constexpr, FIRST_KEY: tl.constexpr, REACH: tl.constexpr, COLUMNS: tl.constexpr, APART: tl.constexpr,
):  # fmt: skip
    """m, l, acc, of the split so far, and the total of those before it, with the BN positions from start on.

    pages, offsets: [BN] the block of each position, and where in it that is. MASKED: rows see a part of the positions,
    up to last_seen of each where rows are causal, or the context ends among them; else loads need no masks, and scores
    only those of a window. ENDS: the last position that a causal row sees may be behind its own. VALUE_DIM: values are
    so many first channels of keys, which tile_q meets, and turned_q the TURNED_DIM behind them; 0: they are in v.
    FIRST_KEY: rows see none before it. APART: numbers from a block to the next. row_slopes: [BM] added to scores that
    are not scaled yet, for each position behind the row's own; None: nothing is. distances, from_rows, from_keys,
    columns, heads, row_places: and what is said of their rows: see by_distance.py.
    """
    BM: tl.constexpr = tile_q.shape[0]
    lanes = tl.arange(0, BN)
    if start % SPLIT == 0:
        # what was gathered so far, nothing at first, ends here
        total_m, total_l, total = merge(total_m, total_l, total, m, tl.max(l, axis=1), acc)
        m = tl.full((BM,), float("-inf"), tl.float32)
        l = tl.zeros((BM, ONES), tl.float32)  # noqa: E741
        acc = tl.zeros(acc.shape, tl.float32)
    at = start + lanes
    is_there = at < context
    row = (pages * KV_HEADS + kv_head) * PAGE + offsets
    # what does not depend on the tile apart, so that it is computed once
    numbers = (pages.to(tl.int64) * APART)[:, None] + (
        (offsets * STORED_DIM + kv_head * (PAGE * STORED_DIM))[:, None] + dims[None, :]
    )
    WIDTH: tl.constexpr = VALUE_DIM if VALUE_DIM > 0 else STORED_DIM
    there = is_there[:, None] & (dims < WIDTH)[None, :]
    if not MASKED:
        there = tl.broadcast_to((dims < WIDTH)[None, :], there.shape)
    tile_k = numbers_of(_numbers(k + numbers, there, WIDTH, MASKED), QK_TYPE)
    scores = mma(tile_q, tl.trans(tile_k), tl.zeros((BM, BN), tl.float32))
    if VALUE_DIM > 0 and TURNED_DIM > 0:
        turned = tl.arange(0, turned_q.shape[1])
        behind = (pages.to(tl.int64) * APART)[:, None] + (
            (offsets * STORED_DIM + kv_head * (PAGE * STORED_DIM) + VALUE_DIM)[:, None] + turned[None, :]
        )
        is_turned = tl.broadcast_to((turned < TURNED_DIM)[None, :], behind.shape)
        if MASKED:
            is_turned = is_turned & is_there[:, None]
        tile_t = numbers_of(_numbers(k + behind, is_turned, TURNED_DIM, MASKED), QK_TYPE)
        scores = mma(turned_q, tl.trans(tile_t), scores)
    if CODES:
        scores = scores * _scales(k_scale + row, is_there, MASKED)[None, :]
    if row_slopes is not None:
        scores = tl.fma(row_slopes[:, None], (at[None, :] - positions[:, None]).to(tl.float32), scores)
    if distances is not None or from_rows is not None:
        scores = add_by_distance(
            scores, distances, from_rows, from_keys, columns, heads, row_places, keys_start, from_keys_stride, at,
            positions, is_there, REACH, COLUMNS, MASKED,
        )  # fmt: skip
    # scores * unit are in units of log 2
    unit = scale * LOG2E
    if SOFTCAP:
        scores = 1.0 - 2.0 / (1.0 + power_of_two(scores * (2.0 * unit / softcap)))
        unit = softcap * LOG2E
    if MASKED or WINDOW:
        if BOTH_WAYS:
            seen = tl.broadcast_to(is_there[None, :], (BM, BN))
            if WINDOW:
                is_near = at[None, :] < positions[:, None] + window
                seen = seen & is_near if MASKED else is_near
        elif ENDS and not MASKED:
            seen = at[None, :] > positions[:, None] - window
        else:
            seen = at[None, :] <= last_seen[:, None]
        if WINDOW and (MASKED or not ENDS):
            seen = seen & (at[None, :] > positions[:, None] - window)
        scores = tl.where(seen, scores, float("-inf"))
    if FIRST_KEY > 0:
        scores = tl.where((at >= FIRST_KEY)[None, :], scores, float("-inf"))

    new_m = tl.maximum(m, tl.max(scores, axis=1) * unit)
    shift = shift_of(new_m)
    weights = power_of_two(tl.fma(scores, unit, -shift[:, None]))
    keep = power_of_two(m - shift)
    # by the matrix unit too, each column the same: its order does not depend on how warps share a tile
    l = mma(round_to(weights, PV_TYPE), ones, l * keep[:, None])  # noqa: E741
    if CODES:
        weights = weights * _scales(v_scale + row, is_there, MASKED)[None, :]
    if VALUE_DIM > 0:
        acc = mma(round_to(weights, PV_TYPE), tile_k, acc * keep[:, None])
    else:
        tile_v = numbers_of(_numbers(v + numbers, there, WIDTH, MASKED), PV_TYPE)
        if CODES and BM < 64:
            tile_v = where_it_is(tile_v)
        acc = mma(round_to(weights, PV_TYPE), tile_v, acc * keep[:, None])
    return new_m, l, acc, total_m, total_l, total


@triton.jit
def block_of(at, PAGE: tl.constexpr, BLOCKS: tl.constexpr):
    """The place in a block table of an entry's block: the last of BLOCKS, which PAGE entries have."""
    return at // PAGE * BLOCKS + (BLOCKS - 1)


@triton.jit
def chosen_places(chosen, stride, token, table, places, end, PAGE: tl.constexpr, BLOCKS: tl.constexpr):
    """Of places of a token's list, up to end, which blocks the positions there are in, and where in them."""
    is_there = places < end
    at = tl.load(chosen + token.to(tl.int64) * stride + places, mask=is_there, other=0)
    return tl.load(table + block_of(at, PAGE, BLOCKS), mask=is_there, other=0), at % PAGE


@triton.jit
def _numbers(at, there, WIDTH: tl.constexpr, MASKED: tl.constexpr):
    """Elements of keys or values, zeros where there are none."""
    if MASKED or at.shape[1] != WIDTH:
        return tl.load(at, mask=there, other=0.0)
    return tl.load(at)


@triton.jit
def _scales(at, is_there, MASKED: tl.constexpr):
    if MASKED:
        return tl.load(at, mask=is_there, other=0.0)
    return tl.load(at)
