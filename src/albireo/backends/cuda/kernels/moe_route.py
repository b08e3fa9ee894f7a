"""moe_route: the best experts of each token and their weights; and lists of the pairs that each expert has.

logits: [T, E] float32; ids: [T, k] int32, weights: [T, k] float32; num_real: [1] int32, tokens that are no padding;
lists: an ExpertList (../expert_list.py), all of it written, counters set back to zero.

Best first, of equal logits the lowest expert, NaN before all. A weight is exp(logit - best), divided by the sum of the
k of them, best first, or, where they are not renormalized, by that of all E, which is a tree that is spelled out. So a
row's bits depend on that row alone. Pairs are counted without a sort: each takes the next place in its expert's list,
so the order there may differ from run to run, and nothing depends on it. The program that comes last cuts the lists
into items of `width` pairs, experts ascending. A padding row has ids and weights, and no pair.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.expert_list import ITEM_FIELDS, ExpertList
from albireo.backends.cuda.kernels.parts.ordering import NO_KEY, NOTHING, key_of, number_of, order_of, place_of
from albireo.backends.cuda.kernels.parts.row_squares import tree_sum
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS
from albireo.backends.cuda.kernels.parts.weights import arrives_last

_ITEM = tl.constexpr(ITEM_FIELDS)
#: Rows of a program, where they are many.
_ROWS = 8


@triton.jit(do_not_specialize=["num_real", "num_tokens", "width"])
def moe_route_kernel(
    logits,
    ids,
    weights,
    num_real,
    pairs,
    counters,
    items,
    num_tokens,
    width,
    logits_stride,
    pairs_stride,
    NUM_EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    ROWS: tl.constexpr,
    EXPERTS: tl.constexpr,
    LEVELS: tl.constexpr,
    CHOICES: tl.constexpr,
):
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < num_tokens
    expert = tl.arange(0, EXPERTS)
    is_expert = expert < NUM_EXPERTS
    at = logits + row.to(tl.int64)[:, None] * logits_stride + expert[None, :]
    x = tl.load(at, mask=is_row[:, None] & is_expert[None, :], other=0.0)
    keys = key_of(tl.where(is_expert[None, :], order_of(x), NOTHING), expert[None, :])
    choice = tl.arange(0, CHOICES)
    best = tl.max(keys, 1)
    peak = number_of((best >> 32).to(tl.int32))
    chosen = tl.zeros((ROWS, CHOICES), tl.int32)
    size = tl.zeros((ROWS, CHOICES), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    for j in tl.static_range(TOP_K):
        mine = tl.exp(number_of((best >> 32).to(tl.int32)) - peak)
        total += mine
        is_mine = choice[None, :] == j
        chosen = tl.where(is_mine, place_of(best)[:, None], chosen)
        size = tl.where(is_mine, mine[:, None], size)
        keys = tl.where(keys == best[:, None], NO_KEY, keys)
        best = tl.max(keys, 1)
    if not RENORMALIZE:
        total = tree_sum(tl.where(is_expert[None, :], tl.exp(x - peak[:, None]), 0.0), LEVELS)
    pair = row[:, None] * TOP_K + choice[None, :]
    is_pair = is_row[:, None] & (choice < TOP_K)[None, :]
    tl.store(ids + pair, chosen, mask=is_pair)
    tl.store(weights + pair, tl.div_rn(size, total[:, None]), mask=is_pair)

    is_listed = is_pair & (row < tl.load(num_real))[:, None]
    place = tl.atomic_add(counters + chosen, 1, mask=is_listed, sem="relaxed", scope="gpu")
    tl.store(pairs + chosen.to(tl.int64) * pairs_stride + place, pair, mask=is_listed)
    if arrives_last(counters + NUM_EXPERTS, tl.num_programs(0)):
        count = tl.load(counters + expert, mask=is_expert, other=0, cache_modifier=".cg")
        tl.debug_barrier()
        tl.store(counters + expert, 0, mask=is_expert)
        tiles = (count + width - 1) // width
        first_tile = tl.cumsum(tiles, 0) - tiles
        tl.store(items, tl.sum(tiles, 0))
        for i in range(0, tl.max(tiles, 0)):
            item, is_item = items + (1 + first_tile + i) * _ITEM, i < tiles
            tl.store(item, expert, mask=is_item)
            tl.store(item + 1, tl.zeros_like(expert) + i * width, mask=is_item)
            tl.store(item + 2, tl.minimum(count - i * width, width), mask=is_item)


def moe_route(
    logits: torch.Tensor,
    ids: torch.Tensor,
    weights: torch.Tensor,
    lists: ExpertList,
    num_real: torch.Tensor,
    renormalize: bool,
) -> None:
    """ids and weights without gaps between rows."""
    num_tokens, experts = len(logits), _experts(lists.num_experts)
    rows = 1 if num_tokens <= FEW_TOKENS else _ROWS
    moe_route_kernel[(triton.cdiv(num_tokens, rows),)](
        logits,
        ids,
        weights,
        num_real,
        lists.pairs,
        lists.counters,
        lists.items,
        num_tokens,
        lists.width(num_tokens),
        logits.stride(0),
        lists.pairs.stride(0),
        NUM_EXPERTS=lists.num_experts,
        TOP_K=lists.top_k,
        RENORMALIZE=renormalize,
        ROWS=rows,
        EXPERTS=experts,
        LEVELS=experts.bit_length() - 1,
        CHOICES=triton.next_power_of_2(lists.top_k),
        num_warps=_warps(rows),
        enable_fp_fusion=False,
    )


def _experts(num_experts: int) -> int:
    return max(32, int(triton.next_power_of_2(num_experts)))


def _warps(rows: int) -> int:
    return 1 if rows == 1 else 4


def aot_cases() -> list[AotCase]:
    def case(num_experts: int, top_k: int, rows: int, renormalize: bool, max_registers: int) -> AotCase:
        experts = _experts(num_experts)
        names = ("ids", "num_real", "pairs", "counters", "items")
        pointers = {"logits": "*fp32", "weights": "*fp32"} | dict.fromkeys(names, "*i32")
        numbers = ("num_tokens", "width", "logits_stride", "pairs_stride")
        return AotCase(
            f"moe_route.{num_experts}.{rows}",
            moe_route_kernel,
            pointers | dict.fromkeys(numbers, "i32"),
            {
                "NUM_EXPERTS": num_experts,
                "TOP_K": top_k,
                "RENORMALIZE": renormalize,
                "ROWS": rows,
                "EXPERTS": experts,
                "LEVELS": experts.bit_length() - 1,
                "CHOICES": int(triton.next_power_of_2(top_k)),
            },
            num_warps=_warps(rows),
            aligned=("logits", "ids", "weights", "pairs", "counters", "items", "logits_stride"),
            max_registers=max_registers,
            max_shared=16 << 10,
            words={architecture: ("ATOMG", "LDG.E.128") for architecture in (80, 90, 100)},
        )

    return [case(128, 8, 1, True, 96), case(128, 8, _ROWS, True, 128), case(60, 4, _ROWS, False, 128)]
