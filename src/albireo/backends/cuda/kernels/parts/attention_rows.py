"""The end of a tile's rows in attention: parts merged by whoever comes last, and numbers or codes written.

Used inside kernels/attention.py, whose contract says what parts are. A tile is BM rows, from first_row on, of the
num_rows of a sequence whose tokens begin at first_token; rows are GROUP heads a token.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.row_codes import store_row, tile_columns
from albireo.backends.cuda.kernels.parts.softmax import merge, normalise


@triton.jit
def merge_parts(
    partial, partial_ml, item, slot, nth, splits, first_dim, first_row, num_rows, kv_head, window,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, SPLIT: tl.constexpr, BM: tl.constexpr,
    WIDTH: tl.constexpr, WINDOW: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """WIDTH columns of a tile's rows, its parts merged in order, of each row those it sees anything of.

    slot: where the nth part begins.
    """
    dims = first_dim + tl.arange(0, WIDTH)
    rows = first_row + tl.arange(0, BM)
    positions = tl.load(item + 4, volatile=True) + rows // GROUP
    before = tl.load(item + 8, volatile=True)
    first_seen = (tl.maximum(positions - window + 1, 0) if WINDOW else positions * 0) // SPLIT - before
    last_seen = positions // SPLIT - before
    step = num_rows // GROUP
    at_first = (slot - nth * step + rows // GROUP) * (KV_HEADS * GROUP) + kv_head * GROUP + rows % GROUP
    m = tl.full((BM,), float("-inf"), tl.float32)
    l = tl.zeros((BM,), tl.float32)  # noqa: E741
    total = tl.zeros((BM, WIDTH), tl.float32)
    for i in tl.range(0, splits, num_stages=STAGES if BM == 16 else 1):
        at = (at_first + i * (step * KV_HEADS * GROUP)).to(tl.int64)
        is_there = (rows < num_rows) & (i >= first_seen) & (i <= last_seen)
        part_m = tl.load(partial_ml + at * 2, mask=is_there, other=float("-inf"), cache_modifier=".cg")
        part_l = tl.load(partial_ml + at * 2 + 1, mask=is_there, other=0.0, cache_modifier=".cg")
        acc = tl.load(
            partial + at[:, None] * HEAD_DIM + dims[None, :],
            mask=is_there[:, None] & (dims < HEAD_DIM)[None, :],
            other=0.0,
            cache_modifier=".cg",
        )
        m, l, total = merge(m, l, total, part_m, part_l, acc)  # noqa: E741
    return l, total


@triton.jit
def store_rows(
    total_l, total, out, stride, first_dim, first_token, first_row, num_rows, kv_head,
    KV_HEADS: tl.constexpr, GROUP: tl.constexpr, HEAD_DIM: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Write what columns of a tile's rows are in the end."""
    dims = first_dim + tl.arange(0, total.shape[1])
    rows = first_row + tl.arange(0, BM)
    at = (first_token + rows // GROUP).to(tl.int64) * stride + (kv_head * GROUP + rows % GROUP) * HEAD_DIM
    tl.store(
        out + at[:, None] + dims[None, :],
        round_to(normalise(total_l, total), out.dtype.element_ty),
        mask=(rows < num_rows)[:, None] & (dims < HEAD_DIM)[None, :],
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
    store_row(out, token, out_stride, out, at, row, WIDTH, BLOCK)
