"""The end of a tile's rows in attention: parts merged by whoever comes last, and numbers or codes written.

Used inside kernels/attention.py, whose contract says what parts are. A tile is BM rows, from first_row on, of the
num_rows of a sequence whose tokens begin at first_token; rows are GROUP heads a token.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.row_codes import store_heads_as_codes, store_row, tile_columns
from albireo.backends.cuda.kernels.parts.softmax import LOG2E, merge, normalise, with_sink
from albireo.graph.attention_op import NOTHING_SEEN, SUM_NUMBERS

_NOTHING_SEEN, _SUM_NUMBERS = tl.constexpr(NOTHING_SEEN), tl.constexpr(SUM_NUMBERS)


@triton.jit
def last_positions(row_ends, first_token, rows, num_rows, base, GROUP: tl.constexpr):
    """The last position that each row sees: its own, or the one before its end; of what is no row the context's."""
    tokens = rows // GROUP
    ends = tl.load(row_ends + first_token + tokens, mask=rows < num_rows, other=0)
    return tl.minimum(tl.maximum(base + tokens, ends - 1), base + num_rows // GROUP - 1)


@triton.jit
def merge_parts(
    partial, partial_ml, row_ends, first_token, first_slot, splits, before, base, first_row, num_rows, kv_head, window,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, SPLIT: tl.constexpr,
    ROWS: tl.constexpr, WINDOW: tl.constexpr, BOTH_WAYS: tl.constexpr, IN_CHUNKS: tl.constexpr, EVERY: tl.constexpr,
):  # fmt: skip
    """ROWS rows of a tile, their parts merged in order, of each row those it sees anything of.

    first_slot: where the first part begins; splits: how many there are, the first of them the split `before`. Eight
    parts are on their way at once: one behind the other, each would cost the way to the cache and back.
    """
    m = tl.full((ROWS,), float("-inf"), tl.float32)
    l = tl.zeros((ROWS,), tl.float32)  # noqa: E741
    total = tl.zeros((ROWS, BLOCK_DIM), tl.float32)
    rows = first_row + tl.arange(0, ROWS)
    step = num_rows // GROUP
    positions = base + rows // GROUP
    first_seen = (tl.maximum(positions - window + 1, 0) if WINDOW else positions * 0) // SPLIT - before
    if IN_CHUNKS:
        first_seen = positions // window * window // SPLIT - before
    last_seen = positions
    if EVERY > 1:
        last_seen = (positions + 1) // EVERY - 1
    if BOTH_WAYS:
        last_seen = positions * 0 + (base + num_rows // GROUP - 1)
        if WINDOW:
            last_seen = tl.minimum(last_seen, positions + window - 1)
    elif row_ends is not None:
        last_seen = last_positions(row_ends, first_token, rows, num_rows, base, GROUP)
    end_seen = tl.where(rows < num_rows, (last_seen + SPLIT) // SPLIT - before, 0)
    at = (first_slot + rows // GROUP).to(tl.int64) * (KV_HEADS * GROUP) + kv_head * GROUP + rows % GROUP
    step = step.to(tl.int64) * (KV_HEADS * GROUP)
    for i in tl.range(0, splits, 8, num_stages=1):
        m0, l0, acc0 = _part(partial, partial_ml, at, i, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m1, l1, acc1 = _part(partial, partial_ml, at, i + 1, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m2, l2, acc2 = _part(partial, partial_ml, at, i + 2, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m3, l3, acc3 = _part(partial, partial_ml, at, i + 3, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m4, l4, acc4 = _part(partial, partial_ml, at, i + 4, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m5, l5, acc5 = _part(partial, partial_ml, at, i + 5, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m6, l6, acc6 = _part(partial, partial_ml, at, i + 6, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m7, l7, acc7 = _part(partial, partial_ml, at, i + 7, step, first_seen, end_seen, HEAD_DIM, BLOCK_DIM)
        m, l, total = merge(m, l, total, m0, l0, acc0)  # noqa: E741
        m, l, total = merge(m, l, total, m1, l1, acc1)  # noqa: E741
        m, l, total = merge(m, l, total, m2, l2, acc2)  # noqa: E741
        m, l, total = merge(m, l, total, m3, l3, acc3)  # noqa: E741
        m, l, total = merge(m, l, total, m4, l4, acc4)  # noqa: E741
        m, l, total = merge(m, l, total, m5, l5, acc5)  # noqa: E741
        m, l, total = merge(m, l, total, m6, l6, acc6)  # noqa: E741
        m, l, total = merge(m, l, total, m7, l7, acc7)  # noqa: E741
    return m, l, total


@triton.jit
def _part(
    partial, partial_ml, at, i, step, first_seen, end_seen, HEAD_DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
):  # fmt: skip
    """The ith part of some rows: nothing where it does not exist, or a row does not see it."""
    dims = tl.arange(0, BLOCK_DIM)
    at = at + i * step
    is_there = (i >= first_seen) & (i < end_seen)
    m = tl.load(partial_ml + at * 2, mask=is_there, other=float("-inf"), cache_modifier=".cg")
    l = tl.load(partial_ml + at * 2 + 1, mask=is_there, other=0.0, cache_modifier=".cg")  # noqa: E741
    acc = tl.load(
        partial + at[:, None] * HEAD_DIM + dims[None, :],
        mask=is_there[:, None] & (dims < HEAD_DIM)[None, :],
        other=0.0,
        cache_modifier=".cg",
    )
    return m, l, acc


@triton.jit
def store_rows(
    total_m, total_l, total, sinks, out, stride, first_token, first_row, num_rows, kv_head,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, NUMBERS: tl.constexpr, SUMS: tl.constexpr,
):  # fmt: skip
    """Write what rows from first_row on are in the end, with the sinks of their heads where there are any: numbers, or
    their part of token rows of e4m3, where a head is whole groups; those are of NUMBERS, as the others are. SUMS:
    sums as they are, and behind those of each head its largest exponent and its sum of powers.
    """
    dims = tl.arange(0, total.shape[1])
    rows = first_row + tl.arange(0, total.shape[0])
    token, head = (first_token + rows // GROUP).to(tl.int64), kv_head * GROUP + rows % GROUP
    is_row = rows < num_rows
    if SUMS:
        at = out + token * stride + head * (HEAD_DIM + _SUM_NUMBERS)
        tl.store(at[:, None] + dims[None, :], total, mask=is_row[:, None] & (dims < HEAD_DIM)[None, :])
        tl.store(at + HEAD_DIM, tl.where(total_m == float("-inf"), _NOTHING_SEEN, total_m), mask=is_row)
        tl.store(at + HEAD_DIM + 1, total_l, mask=is_row)
    else:
        if sinks is not None:
            total_l, total = with_sink(total_m, total_l, total, tl.load(sinks + head, mask=is_row, other=0.0) * LOG2E)
        numbers = normalise(total_l, total)
        if out.dtype.element_ty == tl.float8e4nv:
            rounded = round_to(numbers, NUMBERS).to(tl.float32)
            store_heads_as_codes(out + token * stride, head, rounded, is_row, KV_HEADS * GROUP, HEAD_DIM)
        else:
            tl.store(
                out + (token * stride + head * HEAD_DIM)[:, None] + dims[None, :],
                round_to(numbers, out.dtype.element_ty),
                mask=is_row[:, None] & (dims < HEAD_DIM)[None, :],
            )


@triton.jit
def complete_tokens(
    rows_out, out, finished, first_token, first_row, num_rows, out_stride,
    NUM_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BM: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Count the heads that a tile wrote; of tokens whose last ones they are make rows of codes."""
    tl.debug_barrier()
    end_row = tl.minimum(first_row + BM, num_rows)
    for token in range(first_row // GROUP, (end_row - 1) // GROUP + 1):
        # one number at a time: what an atomic of many gives to threads that hold the same lane is not defined
        mine = tl.minimum((token + 1) * GROUP, end_row) - tl.maximum(token * GROUP, first_row)
        ready = tl.atomic_add(finished + first_token + token, mine, sem="acq_rel", scope="gpu")
        if ready == NUM_HEADS - mine:
            tl.store(finished + first_token + token, 0)
            _store_codes(rows_out, out, first_token + token, out_stride, NUM_HEADS * HEAD_DIM, BLOCK)


@triton.jit
def _store_codes(rows, out, token, out_stride, WIDTH: tl.constexpr, BLOCK: tl.constexpr):
    """A row of numbers that is complete, as a row of codes."""
    at = tile_columns(0, BLOCK)
    token = token.to(tl.int64)
    row = tl.load(rows + token * WIDTH + at, mask=at < WIDTH, other=0.0, cache_modifier=".cg").to(tl.float32)
    store_row(out, token, out_stride, at, row, WIDTH, BLOCK)
