"""list_tokens: the items of attention in which each token sees what it has chosen, and so is computed by itself.

query_start: [B + 1], positions: [T], table_start: [B] int32 of a DeviceStep; work: a WorkList (../attention_plan.py) of
a shape with lists, all of it written but its counters. One launch a step, a program a token; build_work_list.py is the
same for rows that see all. A token has min(position + 1, chosen) places to see (of those in blocks fewer, where its own
block is not whole, or has no key yet and is always seen; of entries of `every` positions min((position + 1) / every,
chosen), rounded down), whole or an item a split, as the plan says of the step: the bits are the same. Where a token has
fewer splits than others, the items behind its last one have no rows; tokens of no sequence see nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.attention_plan import ITEM_FIELDS, WorkList
from albireo.backends.cuda.step import DeviceStep


@triton.jit(do_not_specialize=["num_sequences", "num_tokens"])
def list_tokens_kernel(
    query_start,
    positions,
    table_start,
    count,
    items,
    num_sequences,
    num_tokens,
    CHOSEN: tl.constexpr,
    UNIT: tl.constexpr,
    REST: tl.constexpr,
    EVERY: tl.constexpr,
    GROUP: tl.constexpr,
    TILE_ROWS: tl.constexpr,
    TILES: tl.constexpr,
    SPLIT: tl.constexpr,
    SPLITS: tl.constexpr,
    ITEM: tl.constexpr,
    SEQUENCES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """SPLITS: items of a tile; 1: lists are whole. UNIT: positions that are chosen together. REST: up to UNIT - 1
    behind the last whole unit are seen beside those."""
    token = tl.program_id(0)
    each = tl.arange(0, SEQUENCES)
    ends = tl.load(query_start + 1 + each, mask=each < num_sequences, other=0x7FFFFFFF)
    sequence = tl.sum((ends <= token).to(tl.int32), axis=0)
    is_real = token < tl.load(query_start + num_sequences)
    table = tl.load(table_start + sequence, mask=is_real, other=0)
    position = tl.load(positions + token)
    most = CHOSEN - UNIT + 1 + (position + REST) % UNIT
    seen = tl.where(is_real, tl.minimum((position + 1) // EVERY, most), 0)
    splits = (seen + SPLIT - 1) // SPLIT
    lanes = tl.arange(0, BLOCK)
    row = lanes // SPLITS * TILE_ROWS
    split = lanes % SPLITS
    if SPLITS > 1:
        is_there = (split < splits) | ((seen == 0) & (split == 0))
        part = tl.where(is_there & (seen > 0), token * SPLITS + split, -1)
        end = tl.where(is_there & (seen > 0), split + 1, 0)
        first = tl.where(is_there, split, 0)
    else:
        is_there = lanes >= 0
        part = lanes * 0 - 1
        end = splits + lanes * 0
        first = lanes * 0
    mask = lanes < TILES * SPLITS
    item = items + (token * (TILES * SPLITS) + lanes) * ITEM
    tl.store(item, table, mask=mask)
    tl.store(item + 1, token, mask=mask)
    tl.store(item + 2, row, mask=mask)
    tl.store(item + 3, tl.where(is_there, GROUP, row), mask=mask)
    tl.store(item + 4, seen - 1, mask=mask)
    tl.store(item + 5, first, mask=mask)
    tl.store(item + 6, end, mask=mask)
    tl.store(item + 7, part, mask=mask)
    tl.store(item + 8, 0, mask=mask)
    tl.store(item + 9, splits, mask=mask)
    if token == 0:
        tl.store(count, num_tokens * (TILES * SPLITS))
        tl.store(count + 1, 0)


def list_tokens(step: DeviceStep, work: WorkList) -> None:
    shape, plan = work.shape, work.plan(step)
    num_sequences, num_tokens = step.sizes["B"], step.sizes["T"]
    tiles, splits = triton.cdiv(shape.group, plan.tile_rows), shape.list_splits if plan.max_parts else 1
    list_tokens_kernel[(num_tokens,)](
        step.query_start,
        step.positions,
        step.table_start[shape.block_group],
        work.count,
        work.items,
        num_sequences,
        num_tokens,
        CHOSEN=shape.chosen,
        UNIT=shape.chosen_unit,
        REST=int(shape.sees_rest),
        EVERY=shape.every,
        GROUP=shape.group,
        TILE_ROWS=plan.tile_rows,
        TILES=tiles,
        SPLIT=shape.split,
        SPLITS=splits,
        ITEM=ITEM_FIELDS,
        SEQUENCES=max(16, triton.next_power_of_2(num_sequences)),
        BLOCK=max(16, triton.next_power_of_2(tiles * splits)),
        num_warps=1,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    names = ["query_start", "positions", "table_start", "count", "items"]
    signature = {name: "*i32" for name in names} | {name: "i32" for name in ("num_sequences", "num_tokens")}
    constants = {"CHOSEN": 2048, "UNIT": 1, "REST": 0, "EVERY": 1, "GROUP": 128, "TILE_ROWS": 16, "TILES": 8}
    constants |= {"SPLIT": 512, "ITEM": ITEM_FIELDS}
    return [
        AotCase(
            f"list_tokens.{splits}",
            list_tokens_kernel,
            signature,
            constants | {"SPLITS": splits, "SEQUENCES": 16, "BLOCK": max(16, 8 * splits)},
            num_warps=1,
            aligned=("query_start", "positions", "items"),
            max_registers=64,
            max_shared=1 << 10,
        )
        for splits in (1, 4)
    ]
