"""build_work_list: which tiles of rows the attention of a step computes, and against which splits of their contexts.

query_start: [B + 1], context_len and table_start: [B] int32 of a DeviceStep; work: a WorkList (../attention_plan.py),
all of it written but its counters. One launch a step and window, before the first attention. A padding sequence has no
items; tokens behind query_start[B] belong to no sequence and are items, the last ones, that see nothing. Where rows see
the first num_keys positions, or of these as many as the step's heard says, wherever they are themselves, a context ends
there, and its tokens are taken for its last, which see all of it, both ways. Where they see none before first_key, or
before the chunk of the first token, it begins with the split of that. Where several positions have one entry, splits
are of the entries that end in a context, of which there may be none.

A sequence is computed whole, each tile of its rows by one program, unless that program would then take longer than half
of what each has to do on average; such a sequence is cut into an item a split. Whole sequences need no parts and no
combining, and keep their loads running from one split to the next. They come first, the tiles with most to see before
others, so that what is left for the end is small. Where more parts are wanted than the workspace holds, the later
sequences stay whole. Bits of results do not depend on any of this.

Where rows see what they have chosen, each token is by itself: list_tokens.py.

Each program knows every sequence (B numbers, a few additions) and writes the items of its own, so nothing waits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.attention_plan import ITEM_FIELDS, WorkList
from albireo.backends.cuda.kernels.list_tokens import list_tokens
from albireo.backends.cuda.step import DeviceStep

_BLOCK = 64


@triton.jit(
    do_not_specialize=[
        "num_sequences", "num_tokens", "window", "in_chunks", "first_key", "num_keys", "programs", "max_parts",
    ]
)  # fmt: skip
def build_work_list_kernel(
    query_start,
    context_len,
    table_start,
    heard,
    count,
    items,
    num_sequences,
    num_tokens,
    window,
    in_chunks,
    first_key,
    num_keys,
    programs,
    max_parts,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    SPLIT: tl.constexpr,
    ITEM: tl.constexpr,
    SEQUENCES: tl.constexpr,
    EVERY: tl.constexpr,
    BLOCK: tl.constexpr,
):
    mine = tl.program_id(0)
    each = tl.arange(0, SEQUENCES)
    is_there = each < num_sequences
    starts = tl.load(query_start + each, mask=is_there, other=0)
    n = tl.load(query_start + each + 1, mask=is_there, other=0) - starts
    context = tl.load(context_len + each, mask=is_there, other=0)
    most = num_keys
    if heard is not None:
        found = tl.load(heard + starts, mask=n > 0, other=0)
        most = tl.where(found > 0, tl.minimum(found, num_keys), num_keys)
    context = tl.where(num_keys > 0, tl.minimum(context, most), context)
    base = context - n
    context = context // EVERY
    seen = tl.where(in_chunks > 0, base // tl.maximum(window, 1) * window, base - window + 1)
    first = tl.maximum(tl.where(window > 0, seen, 0), first_key) // SPLIT
    tiles = (n * GROUP + TILE_ROWS - 1) // TILE_ROWS
    splits = (context + SPLIT - 1) // SPLIT - first
    length = (context - first * SPLIT).to(tl.int64)
    work = tl.sum(tiles * length, axis=0) * KV_HEADS
    parts = n * splits
    is_split = (splits > 1) & (tiles > 0) & (2 * length * programs > work) & (parts <= max_parts)
    parts = tl.where(is_split, parts, 0)
    part_ends = tl.cumsum(parts, axis=0)
    is_split = is_split & (part_ends <= max_parts)
    whole_items = tl.where(is_split, 0, tiles)
    split_items = tl.where(is_split, tiles * splits, 0)
    num_whole = tl.sum(whole_items, axis=0)
    lanes = tl.arange(0, BLOCK)

    if mine == num_sequences:
        num_items = num_whole + tl.sum(split_items, axis=0)
        padding = tl.load(query_start + num_sequences)
        num_rows = (num_tokens - padding) * GROUP
        more = (num_rows + TILE_ROWS - 1) // TILE_ROWS
        tl.store(count, num_items + more)
        tl.store(count + 1, 0)
        for i in range(0, more, BLOCK):
            at = i + lanes
            none = at * 0
            _store_item(
                items + (num_items + at) * ITEM, at < more,
                none, padding, at * TILE_ROWS, num_rows, none, none, none, none - 1, none, none,
            )  # fmt: skip
    else:
        is_mine, is_before = each == mine, each < mine
        my_n = tl.sum(tl.where(is_mine, n, 0), axis=0)
        my_start = tl.sum(tl.where(is_mine, starts, 0), axis=0)
        my_base = tl.sum(tl.where(is_mine, base, 0), axis=0)
        my_first = tl.sum(tl.where(is_mine, first, 0), axis=0)
        my_tiles = tl.sum(tl.where(is_mine, tiles, 0), axis=0)
        my_splits = tl.sum(tl.where(is_mine, splits, 0), axis=0)
        my_part = tl.sum(tl.where(is_mine, part_ends - parts, 0), axis=0)
        am_split = tl.sum((is_mine & is_split).to(tl.int32), axis=0) > 0
        my_items = tl.sum(tl.where(is_mine, whole_items + split_items, 0), axis=0)
        before = tl.sum(tl.where(is_before, whole_items, 0), axis=0)
        if am_split:
            before = num_whole + tl.sum(tl.where(is_before, split_items, 0), axis=0)
        my_table = tl.load(table_start + mine)
        for i in range(0, my_items, BLOCK):
            at = i + lanes
            mask = at < my_items
            tile = tl.where(am_split, at // tl.maximum(my_splits, 1), my_tiles - 1 - at)
            split = tl.where(am_split, at % tl.maximum(my_splits, 1), 0)
            item = items + (before + at) * ITEM
            part = tl.where(am_split, my_part + split * my_n, -1)
            end = my_first + tl.where(am_split, split + 1, my_splits)
            _store_item(
                item, mask,
                my_table, my_start, tile * TILE_ROWS, my_n * GROUP, my_base,
                my_first + split, end, part, my_first, my_splits,
            )  # fmt: skip


@triton.jit
def _store_item(item, mask, a, b, c, d, e, f, g, h, i, j):
    """The fields of items, in order; see ITEM_FIELDS."""
    tl.store(item, a, mask=mask)
    tl.store(item + 1, b, mask=mask)
    tl.store(item + 2, c, mask=mask)
    tl.store(item + 3, d, mask=mask)
    tl.store(item + 4, e, mask=mask)
    tl.store(item + 5, f, mask=mask)
    tl.store(item + 6, g, mask=mask)
    tl.store(item + 7, h, mask=mask)
    tl.store(item + 8, i, mask=mask)
    tl.store(item + 9, j, mask=mask)


def build_work_list(step: DeviceStep, work: WorkList) -> None:
    if work.shape.chosen:
        list_tokens(step, work)
        return
    shape, plan = work.shape, work.plan(step)
    num_sequences = step.sizes["B"]
    build_work_list_kernel[(num_sequences + 1,)](
        step.query_start,
        step.context_len,
        step.table_start[shape.block_group],
        step.heard if shape.num_keys else None,
        work.count,
        work.items,
        num_sequences,
        step.sizes["T"],
        shape.window,
        int(shape.in_chunks),
        shape.first_key,
        shape.num_keys,
        plan.programs,
        plan.max_parts,
        KV_HEADS=shape.num_kv_heads,
        GROUP=shape.group,
        TILE_ROWS=plan.tile_rows,
        SPLIT=shape.split,
        ITEM=ITEM_FIELDS,
        SEQUENCES=max(16, triton.next_power_of_2(num_sequences)),
        EVERY=shape.every,
        BLOCK=_BLOCK,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    names = ["query_start", "context_len", "table_start", "count", "items"]
    numbers = ["num_sequences", "num_tokens", "window", "in_chunks", "first_key", "num_keys", "programs", "max_parts"]
    signature = {name: "*i32" for name in names} | {name: "i32" for name in numbers}
    constants = {"KV_HEADS": 8, "GROUP": 4, "TILE_ROWS": 16, "SPLIT": 512, "ITEM": ITEM_FIELDS, "EVERY": 1}
    return [
        AotCase(
            f"build_work_list.{sequences}{'.heard' * listens}",
            build_work_list_kernel,
            signature | ({"heard": "*i32"} if listens else {}),
            constants | {"SEQUENCES": sequences, "BLOCK": _BLOCK} | ({} if listens else {"heard": None}),
            aligned=("query_start", "context_len", "items"),
            max_registers=128,
            max_shared=4 << 10,
        )
        for sequences, listens in ((16, False), (16, True), (1024, False))
    ]
