"""attention: of a step's tokens over the paged KV cache; decode, prefill and mixed steps alike.

q, out: [T, H * D], each float32, bfloat16 or float16, rows contiguous inside. kv: a LayerKV [N, K, P, D rounded up to
16] of float32, bfloat16, float16, int8 or fp8, P of 8, 16 or 32 positions (or a power of two of entries), in which this
step's keys and values are written.
slopes: [H] float32 or None: of causal rows what a score, scaled, has added for each position that is behind the row's.
value_dim: of a cache that has keys alone: values are so many of their first channels, and out is [T, H * value_dim].
The work list's result_dim: of stored values so many are given, and out is [T, H * result_dim].
step, work: a DeviceStep and the WorkList that build_work_list made of it, for layers of this window. workspace:
workspace_size() float32. window: positions a row sees, its own included; 0: all. softcap: 0: none. sinks: [H] float32
or None. both_ways: rows see what comes behind them, too; the step has all tokens of each sequence. row_ends: [T] int32
or None, of causal rows: behind the last position that a row sees, where that is behind its own; rows up to there have
that end, too.

Head h of token t sees positions 0 to its own, the last `window` of them; both ways all positions of its sequence, or
those less than window away. With the work list's num_keys it sees the first so many, wherever it is; with its first_key
none before that; with its in_chunks those from the last multiple of window on. With chosen, [T, count] int32 as
choose_keys leaves them, or of each KV head its own list of as many, it sees these alone: a place in a list is what a
position is elsewhere, and items are of one token (list_tokens.py). With row_ends it sees those behind its own up to
row_ends[t] - 1, too, whatever the window. Where kv has an entry for every so many positions (kv.every), it sees the
entries that end up to its own position, and what is said of positions, splits and lists is of entries; blocks of kv may
be any distance apart. Scores are q.k * scale, scale > 0, capped as softcap * tanh(score / softcap); q.k has added what
`added` says of distances (parts/by_distance.py). out is the mean of v by their softmax, in which sinks[h] is one score
more, of no value: it is added last, when a row is whole. With sums out is [T, H * (width + 2)] float32: of each head
what is not divided, the largest score in units of log 2 (NOTHING_SEEN where there is none) and the sum of powers, as
join_sums reads them. All of out is written; a padding row, which belongs to no sequence, is zeros. Blocks beyond a
context, and positions of its last block behind it, are not read.

One launch. Rows of a sequence that the work list has whole are written as they are ready; of the others each program
leaves a part in the workspace, and the one that comes last, whichever it is, merges the parts in order of position
(kernels wait for nothing). Where out is token rows (uint8 or float8, ../tokens.py), heads are rounded to q's type,
then to codes: those that are whole groups of e4m3 (D of 128, 256) at once; others, from rows [T, H * D], by whoever
brings the last head of a token.

Bits of a row depend on itself, its context, KV_TILE, SPLIT and the matrix instruction: keys are taken KV_TILE at a time
from position 0; each split of SPLIT positions starts anew, and splits are merged in order (parts/softmax.py), within a
program or by the last of several. What a row sees nothing of changes nothing. All sums across a tile are the matrix
unit's, the weights' too, so neither the rows of a tile nor its warps matter. tile_rows 16 and 32 are HMMA everywhere;
64 and 128 are HGMMA on 9.0, tcgen05 on 10.0, else HMMA. In the interpreter every tile_rows gives the same bits. Whether
HMMA and HGMMA do is to be measured; where they do not, AttentionShape.tile_rows = 64 makes one class of all steps.

Rounding: products of 16 bits are exact, sums float32. Where q and the cache have one type, weights are rounded to it
before they meet v. With codes, weights times the values' scales are rounded to bfloat16 (scales leave float16's range),
and codes are used as they are. With float32 in q or the cache, or two types, all is float32, which is slow.

Speed. Tiles of which every row sees all, all but the last of most items, have a loop of their own: no masks of loads,
none of scores without a window: 359 instructions a tile of 16 rows where one loop had 586 (Triton 3.6,
128 numbers a head). Blocks of the next tile are asked for while a tile is computed; keys and values of launch.stages -
1 tiles have memory, and loads of a tile are issued as the one before the last of them is finished. How many programs
share a multiprocessor, and that a grid holds no more: attention_plan.launch_of(). 64 and 128 rows: one program of 8
warps; a key is then read from L2 once for so many rows. A program asks for its next item as it begins one, beside the
loads of that; whole items run through split ends without draining the loads. Parts are merged eight at a time. Lists
have loops without stages: Triton's pipeliner gives up where a loop loads where to load from.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.attention_plan import ITEM_FIELDS, WorkList, merged_rows, parts_of, turned_block
from albireo.backends.cuda.chip import chip_of
from albireo.backends.cuda.kernels.parts.attention_cases import attention_cases
from albireo.backends.cuda.kernels.parts.attention_rows import (
    complete_tokens,
    last_positions,
    merge_parts,
    store_rows,
)
from albireo.backends.cuda.kernels.parts.attention_tile import ONES, attend, block_of, chosen_places
from albireo.backends.cuda.kernels.parts.by_distance import NOTHING, ByDistance
from albireo.backends.cuda.kernels.parts.kv_numbers import numbers_of
from albireo.backends.cuda.kernels.parts.row_codes import row_block
from albireo.backends.cuda.kernels.parts.softmax import merge
from albireo.backends.cuda.kv import TORCH_DTYPES, LayerKV
from albireo.backends.cuda.step import DeviceStep
from albireo.dtypes import FP8_GROUP
from albireo.errors import InvariantError

_FIELDS = tl.constexpr(ITEM_FIELDS)
_TYPES = {"float32": tl.float32, "bfloat16": tl.bfloat16, "float16": tl.float16}


@triton.jit
def attention_kernel(
    q,
    k,
    v,
    k_scale,
    v_scale,
    sinks,
    slopes,
    row_ends,
    chosen,
    distances,
    from_rows,
    from_keys,
    columns,
    out,
    rows_out,
    items,
    count,
    arrived,
    finished,
    block_table,
    partial,
    partial_ml,
    scale,
    softcap,
    window,
    q_stride,
    out_stride,
    chosen_stride,
    from_rows_stride,
    from_keys_stride,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    STORED_DIM: tl.constexpr,
    VALUE_DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
    TURNED_BLOCK: tl.constexpr,
    PAGE: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    SPLIT: tl.constexpr,
    QK_TYPE: tl.constexpr,
    PV_TYPE: tl.constexpr,
    CODES: tl.constexpr,
    WINDOW: tl.constexpr,
    SOFTCAP: tl.constexpr,
    STAGES: tl.constexpr,
    MERGED: tl.constexpr,
    TOKEN_BLOCK: tl.constexpr,
    BOTH_WAYS: tl.constexpr,
    FIRST_KEY: tl.constexpr,
    IN_CHUNKS: tl.constexpr,
    RESULT_DIM: tl.constexpr,
    LIST: tl.constexpr,
    REACH: tl.constexpr,
    COLUMNS: tl.constexpr,
    APART: tl.constexpr,
    BLOCKS: tl.constexpr,
    EVERY: tl.constexpr,
    SUMS: tl.constexpr,
):
    # of a result, and of keys that queries meet as they meet values
    WIDTH: tl.constexpr = VALUE_DIM if VALUE_DIM > 0 else HEAD_DIM
    num_units = tl.load(count) * KV_HEADS
    to = out if TOKEN_BLOCK == 0 else rows_out
    # base positions that rows see entries of; of a list, whose base is in it, one each
    BEHIND: tl.constexpr = EVERY if chosen is None else 1
    to_stride = out_stride if TOKEN_BLOCK == 0 else KV_HEADS * GROUP * RESULT_DIM
    dims = tl.arange(0, BLOCK_DIM)
    lanes = tl.arange(0, BN)
    ones = tl.full((BN, ONES), 1.0, tl.float32).to(PV_TYPE)
    unit = tl.program_id(0)
    while unit < num_units:
        item = items + (unit // KV_HEADS) * _FIELDS
        kv_head = unit % KV_HEADS
        table = tl.load(item)
        first_token = tl.load(item + 1)
        first_row = tl.load(item + 2)
        num_rows = tl.load(item + 3)
        base = tl.load(item + 4)
        first_split = tl.load(item + 5)
        end_split = tl.load(item + 6)
        # behind those loads, which it does not wait for; each unit adds one, so attention of the next layer finds a
        # multiple of num_units
        next_unit = tl.num_programs(0) + tl.atomic_add(count + 1, 1, sem="relaxed") % num_units

        rows = first_row + tl.arange(0, BM)
        is_row = rows < num_rows
        tokens = rows // GROUP
        heads = kv_head * GROUP + rows % GROUP
        positions = base + tokens
        context = (base + num_rows // GROUP) // BEHIND
        from_q = q + (first_token + tokens).to(tl.int64)[:, None] * q_stride + heads[:, None] * HEAD_DIM
        tile_q = tl.load(
            from_q + dims[None, :],
            mask=is_row[:, None] & (dims < WIDTH)[None, :],
            other=0.0,
        )
        tile_q = numbers_of(tile_q, QK_TYPE)
        turned_q = tile_q
        if VALUE_DIM > 0 and HEAD_DIM > VALUE_DIM:
            turned = VALUE_DIM + tl.arange(0, TURNED_BLOCK)
            turned_q = tl.load(
                from_q + turned[None, :],
                mask=is_row[:, None] & (turned < HEAD_DIM)[None, :],
                other=0.0,
            )
            turned_q = numbers_of(turned_q, QK_TYPE)

        begin = first_split * SPLIT
        if WINDOW:
            first_seen = base + first_row // GROUP - window + 1
            if IN_CHUNKS:
                first_seen = (base + first_row // GROUP) // window * window
            begin = tl.maximum(begin, first_seen // BN * BN)
        if FIRST_KEY > 0:
            begin = tl.maximum(begin, FIRST_KEY // BN * BN)
        last_token = tl.minimum(first_row + BM, num_rows) - 1
        if BOTH_WAYS:
            end = context
            if WINDOW:  # whole tiles, as those are that need no masks of loads
                end = tl.minimum(end, (base + last_token // GROUP + window + BN - 1) // BN * BN)
            end = tl.minimum(end_split * SPLIT, end)
        elif row_ends is not None:
            # no row before the last one sees more than that
            last_end = tl.load(row_ends + first_token + last_token // GROUP)
            end = tl.minimum(tl.maximum(base + last_token // GROUP + 1, last_end), context)
            end = tl.minimum(end_split * SPLIT, end)
        else:
            end = tl.minimum(end_split * SPLIT, (base + last_token // GROUP + 1) // BEHIND)

        row_slopes = None
        if slopes is not None:  # in units of scores before their scale
            row_slopes = tl.div_rn(tl.load(slopes + heads, mask=is_row, other=0.0), scale)
        if BEHIND > 1:
            positions = (positions + 1) // BEHIND - 1
        last_seen = positions
        if row_ends is not None:
            last_seen = last_positions(row_ends, first_token, rows, num_rows, base, GROUP)
        if IN_CHUNKS:  # of a window, a row sees as far back as the last one of its chunk
            positions = positions // window * window + window - 1
        row_places, keys_start = None, None
        if from_rows is not None:  # of what is no row those of the last one
            own_row = first_token + tl.minimum(tokens, num_rows // GROUP - 1)
            row_places = own_row.to(tl.int64) * from_rows_stride + heads * COLUMNS
            keys_start = first_token - base
        m = tl.full((BM,), float("-inf"), tl.float32)
        l = tl.zeros((BM, ONES), tl.float32)  # noqa: E741
        acc = tl.zeros((BM, BLOCK_DIM), tl.float32)
        total_m = m
        total_l = tl.zeros((BM,), tl.float32)
        total = acc
        # of these every row sees every position, but for windows
        if BOTH_WAYS:
            full_end = tl.minimum(end, context // BN * BN)
        else:
            full_end = tl.minimum(end, (base + first_row // GROUP + 1) // BEHIND // BN * BN)
        last = tl.maximum(full_end - BN, begin)
        own_list = chosen
        if LIST > 0:  # places of each KV head's own, one list behind the other
            own_list = chosen + kv_head * LIST
        entries = block_table + table + block_of(lanes, PAGE, BLOCKS)
        offsets = lanes % PAGE
        if chosen is None:
            pages = tl.load(entries + begin // PAGE * BLOCKS, mask=begin + lanes < full_end, other=0)
        else:
            pages, offsets = chosen_places(
                own_list, chosen_stride, first_token, block_table + table, begin + lanes, full_end, PAGE, BLOCKS
            )
        for start in tl.range(begin, full_end, BN, num_stages=STAGES):
            next_offsets = offsets
            if chosen is None:
                next_pages = tl.load(entries + tl.minimum(start + BN, last) // PAGE * BLOCKS)
            else:
                next_pages, next_offsets = chosen_places(
                    own_list,
                    chosen_stride,
                    first_token,
                    block_table + table,
                    start + BN + lanes,
                    full_end,
                    PAGE,
                    BLOCKS,
                )
            m, l, acc, total_m, total_l, total = attend(  # noqa: E741
                start, pages, offsets, m, l, acc, total_m, total_l, total, tile_q, turned_q, ones, positions,
                positions, dims, k, v, k_scale, v_scale, kv_head, context, scale, softcap, window, row_slopes,
                distances, from_rows, from_keys, columns, heads, row_places, keys_start, from_keys_stride,
                KV_HEADS, STORED_DIM, VALUE_DIM, HEAD_DIM - VALUE_DIM, PAGE, BN, SPLIT, QK_TYPE, PV_TYPE,
                CODES, WINDOW, SOFTCAP, BOTH_WAYS, row_ends is not None, False, FIRST_KEY,
                REACH, COLUMNS, APART,
            )  # fmt: skip
            pages = next_pages
            offsets = next_offsets
        for start in tl.range(
            tl.maximum(begin, full_end), end, BN, num_stages=2 if chosen is None and from_rows is None else 1
        ):
            if chosen is None:
                pages = tl.load(entries + start // PAGE * BLOCKS, mask=start + lanes < context, other=0)
            else:
                pages, offsets = chosen_places(
                    own_list, chosen_stride, first_token, block_table + table, start + lanes, context, PAGE, BLOCKS
                )
            m, l, acc, total_m, total_l, total = attend(  # noqa: E741
                start, pages, offsets, m, l, acc, total_m, total_l, total, tile_q, turned_q, ones, positions,
                last_seen, dims, k, v, k_scale, v_scale, kv_head, context, scale, softcap, window, row_slopes,
                distances, from_rows, from_keys, columns, heads, row_places, keys_start, from_keys_stride,
                KV_HEADS, STORED_DIM, VALUE_DIM, HEAD_DIM - VALUE_DIM, PAGE, BN, SPLIT, QK_TYPE, PV_TYPE,
                CODES, WINDOW, SOFTCAP, BOTH_WAYS, row_ends is not None, True, FIRST_KEY,
                REACH, COLUMNS, APART,
            )  # fmt: skip
        total_m, total_l, total = merge(total_m, total_l, total, m, tl.max(l, axis=1), acc)

        # read anew, so that nothing of where a result goes is kept in registers during the loop
        first_token = tl.load(item + 1, cache_modifier=".ca")
        first_row = tl.load(item + 2, cache_modifier=".ca")
        num_rows = tl.load(item + 3, cache_modifier=".ca")
        slot = tl.load(item + 7, cache_modifier=".ca")
        rows = first_row + tl.arange(0, BM)
        is_row = rows < num_rows
        tokens = rows // GROUP
        heads = kv_head * GROUP + rows % GROUP
        is_whole = slot < 0
        if slot < 0:
            store_rows(
                total_m, total_l, total, sinks, to, to_stride, first_token, first_row, num_rows, kv_head,
                KV_HEADS, GROUP, RESULT_DIM, q.dtype.element_ty, SUMS,
            )  # fmt: skip
        else:
            if begin < end:
                at_part = (slot + tokens).to(tl.int64) * (KV_HEADS * GROUP) + heads
                tl.store(
                    partial + at_part[:, None] * WIDTH + dims[None, :],
                    total,
                    mask=is_row[:, None] & (dims < WIDTH)[None, :],
                )
                tl.store(partial_ml + at_part * 2, total_m, mask=is_row)
                tl.store(partial_ml + at_part * 2 + 1, total_l, mask=is_row)
            tl.debug_barrier()  # every thread's stores are released by the one that counts
            # how many parts there are, and which this one is
            before = tl.load(item + 8, cache_modifier=".ca")
            nth = tl.load(item + 5, cache_modifier=".ca") - before
            splits = tl.load(item + 9, cache_modifier=".ca")
            base = tl.load(item + 4, cache_modifier=".ca")
            own = arrived + (unit // KV_HEADS - nth) * KV_HEADS + kv_head
            is_whole = tl.atomic_add(own, 1, sem="acq_rel", scope="gpu") == splits - 1
            if is_whole:
                tl.store(own, 0)
                first_slot = slot - nth * (num_rows // GROUP)
                for row in tl.range(first_row, tl.minimum(first_row + BM, num_rows), MERGED, num_stages=1):
                    merged_m, merged_l, merged = merge_parts(
                        partial, partial_ml, row_ends, first_token, first_slot, splits, before, base, row, num_rows,
                        kv_head, window, KV_HEADS, GROUP, WIDTH, BLOCK_DIM, SPLIT, MERGED, WINDOW, BOTH_WAYS, IN_CHUNKS,
                        BEHIND,
                    )  # fmt: skip
                    store_rows(
                        merged_m, merged_l, merged, sinks, to, to_stride, first_token, row, num_rows, kv_head,
                        KV_HEADS, GROUP, RESULT_DIM, q.dtype.element_ty, SUMS,
                    )  # fmt: skip
        if TOKEN_BLOCK > 0:  # noqa: SIM102 - a constant: nothing below is compiled where it is 0
            if is_whole:
                complete_tokens(
                    to, out, finished, first_token, first_row, num_rows, out_stride,
                    KV_HEADS * GROUP, GROUP, RESULT_DIM, BM, TOKEN_BLOCK,
                )  # fmt: skip
        unit = next_unit


def attention(
    q: torch.Tensor,
    kv: LayerKV,
    out: torch.Tensor,
    step: DeviceStep,
    work: WorkList,
    workspace: torch.Tensor,
    num_heads: int,
    num_kv_heads: int,
    head_dim: int,
    scale: float,
    window: int,
    softcap: float,
    rows: torch.Tensor | None = None,
    sinks: torch.Tensor | None = None,
    slopes: torch.Tensor | None = None,
    value_dim: int = 0,
    both_ways: bool = False,
    row_ends: torch.Tensor | None = None,
    chosen: torch.Tensor | None = None,
    added: ByDistance | None = None,
    sums: bool = False,
) -> None:
    """rows: [at least T, H * D] of q's type, contiguous, where out is token rows that need_rows(); else unused."""
    shape, plan = work.shape, work.plan(step)
    asked = (num_heads, num_kv_heads, head_dim, value_dim, window, q.dtype, kv.k.dtype)
    types = (TORCH_DTYPES[shape.q_dtype], TORCH_DTYPES[shape.kv_dtype])
    if asked != (shape.num_heads, shape.num_kv_heads, shape.head_dim, shape.value_dim, shape.window, *types):
        raise InvariantError(f"attention of {asked} (heads, KV heads, channels, window, types) got work of {shape}")
    if shape.every != kv.every or (kv.every > 1 and (window or both_ways or shape.num_keys or added is not None)):
        raise InvariantError(f"attention to entries of {kv.every} positions got work of {shape}, or sees positions")
    if sums and (sinks is not None or out.dtype != torch.float32):
        raise InvariantError(f"attention that gives sums writes float32, without sinks; got {out.dtype}")
    if added is not None and shape.in_chunks:
        raise InvariantError("attention in chunks, to which rows add by distance: no kernel has both")
    width = num_heads * shape.result_width
    is_coded = need_rows(out.dtype, shape.result_width, shape.width)
    if is_coded and (rows is None or rows.dtype != q.dtype or rows.numel() < len(q) * width):
        raise InvariantError(f"attention to 8-bit codes needs rows of {len(q)} x {width} {q.dtype}")
    block_dim = triton.next_power_of_2(value_dim or kv.k.shape[3])
    partial, stats = parts_of(shape, plan, workspace)
    qk_type, pv_type = shape.compute_types
    attention_kernel[(plan.programs,)](
        q=q,
        k=_readable(kv.k),
        v=_readable(kv.v),
        k_scale=kv.k_scale,
        v_scale=kv.v_scale,
        sinks=sinks,
        slopes=slopes,
        row_ends=None if shape.num_keys or shape.chosen else row_ends,
        chosen=chosen,
        **(NOTHING if added is None else added.arguments(num_heads)),
        out=out,
        rows_out=rows if is_coded else out,
        items=work.items,
        count=work.count,
        arrived=work.arrived,
        finished=work.finished,
        block_table=step.block_table,
        partial=partial,
        partial_ml=stats,
        scale=scale,
        softcap=softcap,
        window=window,
        q_stride=q.stride(0),
        out_stride=out.stride(0),
        chosen_stride=0 if chosen is None else chosen.stride(0),
        KV_HEADS=num_kv_heads,
        GROUP=shape.group,
        HEAD_DIM=head_dim,
        STORED_DIM=kv.k.shape[3],
        VALUE_DIM=value_dim,
        BLOCK_DIM=block_dim,
        TURNED_BLOCK=turned_block(head_dim, value_dim),
        PAGE=kv.k.shape[2],
        BM=plan.tile_rows,
        BN=shape.kv_tile,
        SPLIT=shape.split,
        QK_TYPE=_TYPES[qk_type],
        PV_TYPE=_TYPES[pv_type],
        CODES=kv.k_scale is not None,
        WINDOW=window > 0,
        SOFTCAP=softcap > 0,
        STAGES=plan.launch.stages if chosen is None and added is None else 1,
        MERGED=merged_rows(plan.tile_rows, block_dim, plan.launch.warps),
        TOKEN_BLOCK=row_block(width) if is_coded else 0,
        BOTH_WAYS=both_ways or shape.num_keys > 0,  # the list ends contexts there
        FIRST_KEY=shape.first_key,
        IN_CHUNKS=shape.in_chunks,
        RESULT_DIM=shape.result_width,
        LIST=shape.chosen if chosen is not None and chosen.shape[1] > shape.chosen else 0,
        APART=kv.k.stride(0),
        BLOCKS=kv.blocks,
        EVERY=kv.every,
        SUMS=sums,
        num_warps=plan.launch.warps,
        num_stages=plan.launch.stages,
        maxnreg=plan.launch.registers,
        enable_fp_fusion=False,
    )


def need_rows(out: torch.dtype, head_dim: int, width: int | None = None) -> bool:
    """Whether codes share scales beyond a head, and so wait in rows of numbers until a token is whole.

    Args: width: of a head's sums, where results are a part of these.
    """
    has_groups = head_dim >= FP8_GROUP and triton.next_power_of_2(head_dim) == head_dim and width in (None, head_dim)
    return out == torch.uint8 or (out == torch.float8_e4m3fn and not has_groups)


def _readable(numbers: torch.Tensor) -> torch.Tensor:
    """fp8 as bytes, which the kernel takes apart, where Triton has no such type: before compute capability 8.9."""
    is_old = chip_of(numbers.device).capability < 89
    return numbers.view(torch.uint8) if is_old and numbers.dtype == torch.float8_e4m3fn else numbers


def aot_cases() -> list[AotCase]:
    return attention_cases(attention_kernel)
