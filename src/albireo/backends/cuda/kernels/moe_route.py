"""moe_route: the best experts of each token and their weights; and lists of the pairs that each expert has.

logits: [T, E] float32; bias, gain: [E] float32 or none; chosen: [T, k] float32 or none, whole numbers; ids: [T, k]
int32, weights: [T, k] float32; num_real: [1] int32, tokens that are no padding; lists: an ExpertList
(../expert_list.py), all of it written, counters set to zero.

A score is exp(logit - best), or the logit's sigmoid, or sqrt(log(1 + e^logit)); whole is the sum of all E of softmax,
which is a tree that is spelled out, and 1 of the others. With chosen nothing is compared: ids are these, 0 for what is
no expert's number; an expert may be a token's more than once. Else best first by logit, or, with a bias, by score /
whole + bias, or logit + bias; of equals the lowest expert, NaN before all; of groups only those of the best groups, see
graph/ops.py. A weight is a score divided by whole, or, renormalized, by the sum of the k of them, best first, plus eps;
or, with a margin, of a softmax over those near it and not chosen before (graph/ops.py), summed as a tree; then times a
factor, then times the gain of its expert. So a row's bits depend on that row alone. Pairs are counted without a sort:
each takes the next place in its expert's list, so the order there may differ from run to run, and nothing depends on
it. The program that comes last cuts the lists into items of `width` pairs, experts ascending. A padding row has ids and
weights, and no pair. Where more is routed than the lists have experts, what is chosen behind the last of these has none
either, and ids are left in lists.ids, too, where moe_combine sees which pairs nobody computes. shared: the last of a
row's experts is none of these but E, which every row has: its weight is 1, or the sigmoid of gate [T, 1] float32, its
pairs are in the order of rows, and its items come behind all others.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import ARCHITECTURES, AotCase
from albireo.backends.cuda.expert_list import ITEM_FIELDS, ExpertList
from albireo.backends.cuda.kernels.parts.activations import sigmoid, softplus
from albireo.backends.cuda.kernels.parts.arriving import arrives_last
from albireo.backends.cuda.kernels.parts.ordering import NO_KEY, NOTHING, key_of, number_of, order_of, place_of
from albireo.backends.cuda.kernels.parts.row_squares import tree_sum
from albireo.backends.cuda.kernels.parts.tiles import FEW_TOKENS
from albireo.errors import InvariantError
from albireo.graph.op_numbers import LEAST_SCORES

_ITEM = tl.constexpr(ITEM_FIELDS)
_LEAST = tl.constexpr(LEAST_SCORES)
#: Rows of a program, where they are many.
_ROWS = 8


@dataclass(frozen=True, slots=True)
class Groups:
    """Experts are count equal groups, of which kept may be chosen from; the sum of its best ones is a group's worth."""

    count: int
    kept: int
    best: int


@dataclass(frozen=True, slots=True)
class Rules:
    """What is made of logits. scores: one of graph.op_numbers.SCORES. factor: on weights; eps: added to what they are
    divided by; margin: how near another expert must be to count in a choice's softmax; None: there is none. by_logits:
    a bias is added to logits, not to scores. shared: see above."""

    renormalize: bool
    scores: str = "softmax"
    groups: Groups | None = None
    factor: float | None = None
    eps: float | None = None
    margin: float | None = None
    by_logits: bool = False
    shared: bool = False


@triton.jit
def _score(x, peak, SCORES: tl.constexpr):
    if SCORES == "sigmoid":
        return tl.div_rn(1.0, 1.0 + tl.exp(-x))
    elif SCORES == "root_softplus":
        return tl.sqrt_rn(softplus(x))
    else:
        return tl.exp(x - peak)


@triton.jit
def _of_choice(numbers, places, place):
    """The number of each row that is at a place of its own."""
    return tl.sum(tl.where(places[None, :] == place[:, None], numbers, tl.zeros_like(numbers)), 1)


@triton.jit
def _second(keys, best):
    """The number of the best key behind this one."""
    return number_of((tl.max(tl.where(keys == best[:, None], NO_KEY, keys), 1) >> 32).to(tl.int32))


@triton.jit
def _in_best_groups(
    keys,
    expert,
    GROUPS: tl.constexpr,
    KEPT: tl.constexpr,
    BEST: tl.constexpr,
    SIZE: tl.constexpr,
    PLACES: tl.constexpr,
):
    """keys, but of experts whose group is not kept: NO_KEY."""
    place = tl.arange(0, PLACES)
    worths = tl.full((keys.shape[0], PLACES), NO_KEY, tl.int64)
    for g in tl.static_range(GROUPS):
        mine = tl.where((expert // SIZE == g)[None, :], keys, NO_KEY)
        first = tl.max(mine, 1)
        worth = number_of((first >> 32).to(tl.int32))
        if BEST == 2:
            worth += _second(mine, first)
        worths = tl.where((place == g)[None, :], key_of(order_of(worth)[:, None], place[None, :]), worths)
    is_open = tl.zeros(keys.shape, tl.int1)
    for _ in tl.static_range(KEPT):
        best = tl.max(worths, 1)
        is_open = is_open | ((expert // SIZE)[None, :] == place_of(best)[:, None])
        worths = tl.where(worths == best[:, None], NO_KEY, worths)
    return tl.where(is_open, keys, NO_KEY)


@triton.jit(do_not_specialize=["num_real", "num_tokens", "width"])
def moe_route_kernel(
    logits,
    bias,
    gain,
    chosen_ids,
    gate,
    ids,
    weights,
    listed_ids,
    num_real,
    pairs,
    counters,
    items,
    num_tokens,
    width,
    logits_stride,
    chosen_stride,
    gate_stride,
    pairs_stride,
    NUM_ROUTED: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    TOP_K: tl.constexpr,
    RENORMALIZE: tl.constexpr,
    SCORES: tl.constexpr,
    FACTOR: tl.constexpr,
    EPS: tl.constexpr,
    MARGIN: tl.constexpr,
    BY_LOGITS: tl.constexpr,
    SHARED: tl.constexpr,
    GROUPS: tl.constexpr,
    KEPT: tl.constexpr,
    BEST: tl.constexpr,
    PLACES: tl.constexpr,
    ROWS: tl.constexpr,
    EXPERTS: tl.constexpr,
    LEVELS: tl.constexpr,
    CHOICES: tl.constexpr,
):
    CHOSEN: tl.constexpr = TOP_K - 1 if SHARED else TOP_K
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    is_row = row < num_tokens
    expert = tl.arange(0, EXPERTS)
    is_expert = expert < NUM_ROUTED
    at = logits + row.to(tl.int64)[:, None] * logits_stride + expert[None, :]
    x = tl.load(at, mask=is_row[:, None] & is_expert[None, :], other=0.0)
    keys = key_of(tl.where(is_expert[None, :], order_of(x), NOTHING), expert[None, :])
    choice = tl.arange(0, CHOICES)
    best = tl.max(keys, 1)
    peak = number_of((best >> 32).to(tl.int32))
    scores = _score(x, peak[:, None], SCORES)
    if bias is not None:
        merits = x if BY_LOGITS else scores
        if SCORES == "softmax" and not BY_LOGITS:
            whole = tree_sum(tl.where(is_expert[None, :], scores, 0.0), LEVELS)
            merits = tl.div_rn(scores, whole[:, None])
        merits += tl.load(bias + expert, mask=is_expert, other=0.0)[None, :]
        keys = key_of(tl.where(is_expert[None, :], order_of(merits), NOTHING), expert[None, :])
        best = tl.max(keys, 1)
    if GROUPS > 0:
        keys = _in_best_groups(keys, expert, GROUPS, KEPT, BEST, NUM_ROUTED // GROUPS, PLACES)
        best = tl.max(keys, 1)
    chosen = tl.zeros((ROWS, CHOICES), tl.int32)
    size = tl.zeros((ROWS, CHOICES), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    if chosen_ids is not None:
        at = chosen_ids + row.to(tl.int64)[:, None] * chosen_stride + choice[None, :]
        number = tl.load(at, mask=is_row[:, None] & (choice < CHOSEN)[None, :], other=0.0)
        chosen = tl.where((number >= 0.0) & (number < NUM_ROUTED), number, 0.0).to(tl.int32)
    for j in tl.static_range(CHOSEN):
        if chosen_ids is not None:
            mine = _of_choice(scores, expert, _of_choice(chosen, choice, tl.full((ROWS,), j, tl.int32)))
        elif bias is not None:
            mine = _of_choice(scores, expert, place_of(best))
        elif MARGIN is not None:
            top = number_of((best >> 32).to(tl.int32))[:, None]
            is_near = top - x <= MARGIN * tl.maximum(tl.abs(x), top)
            is_counted = is_near & (keys != NO_KEY) & is_expert[None, :]
            mine = tl.div_rn(1.0, tree_sum(tl.where(is_counted, tl.exp(x - top), 0.0), LEVELS))
        else:
            mine = _score(number_of((best >> 32).to(tl.int32)), peak, SCORES)
        total += mine
        is_mine = choice[None, :] == j
        size = tl.where(is_mine, mine[:, None], size)
        if chosen_ids is None:
            chosen = tl.where(is_mine, place_of(best)[:, None], chosen)
            keys = tl.where(keys == best[:, None], NO_KEY, keys)
            best = tl.max(keys, 1)
    if RENORMALIZE:
        if EPS is not None:
            total += EPS
        total = tl.where(total < _LEAST, _LEAST, total)  # a NaN stays one
    elif SCORES != "softmax" or MARGIN is not None:
        total = tl.full((ROWS,), 1.0, tl.float32)
    else:
        total = tree_sum(tl.where(is_expert[None, :], scores, 0.0), LEVELS)
    counts = tl.div_rn(size, total[:, None])
    if FACTOR is not None:
        counts *= FACTOR
    if gain is not None:
        counts *= tl.load(gain + chosen)  # of places that are no choice, the first expert's
    is_chosen = (choice < CHOSEN)[None, :]
    if SHARED:
        by = tl.full((ROWS,), 1.0, tl.float32)
        if gate is not None:
            by = sigmoid(tl.load(gate + row.to(tl.int64) * gate_stride, mask=is_row, other=0.0))
        counts = tl.where(is_chosen, counts, by[:, None])
        chosen = tl.where(is_chosen, chosen, NUM_ROUTED)
    pair = row[:, None] * TOP_K + choice[None, :]
    is_pair = is_row[:, None] & (choice < TOP_K)[None, :]
    tl.store(ids + pair, chosen, mask=is_pair)
    tl.store(weights + pair, counts, mask=is_pair)

    if listed_ids is not None:
        tl.store(listed_ids + pair, chosen, mask=is_pair)
    is_real = row < tl.load(num_real)
    is_listed = is_pair & is_chosen & (chosen < NUM_EXPERTS) & is_real[:, None]
    place = tl.atomic_add(counters + chosen, 1, mask=is_listed, sem="relaxed", scope="gpu")
    tl.store(pairs + chosen.to(tl.int64) * pairs_stride + place, pair, mask=is_listed)
    if SHARED:
        tl.store(
            pairs + tl.full((), NUM_ROUTED, tl.int64) * pairs_stride + row, row * TOP_K + CHOSEN, mask=is_row & is_real
        )
    if arrives_last(counters + NUM_EXPERTS, tl.num_programs(0)):
        has_list = expert < NUM_EXPERTS
        count = tl.load(counters + expert, mask=has_list, other=0, cache_modifier=".cg")
        tl.debug_barrier()
        tl.store(counters + expert, 0, mask=has_list)
        tiles = (count + width - 1) // width
        first_tile = tl.cumsum(tiles, 0) - tiles
        num_items = tl.sum(tiles, 0)
        if SHARED:
            # expert: the lanes that are there, whatever they number
            behind = items + (1 + num_items) * _ITEM
            count_of_all = tl.load(num_real)
            more = (count_of_all + width - 1) // width
            for i in range(0, more, EXPERTS):
                item, is_item = behind + (i + expert) * _ITEM, i + expert < more
                tl.store(item, tl.full((EXPERTS,), NUM_ROUTED, tl.int32), mask=is_item)
                tl.store(item + 1, (i + expert) * width, mask=is_item)
                tl.store(item + 2, tl.minimum(count_of_all - (i + expert) * width, width), mask=is_item)
            num_items += more
        tl.store(items, num_items)
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
    rules: Rules,
    bias: torch.Tensor | None = None,
    gain: torch.Tensor | None = None,
    chosen: torch.Tensor | None = None,
    gate: torch.Tensor | None = None,
) -> None:
    """ids and weights without gaps between rows.

    Raises: InvariantError where more is routed than there are experts, and lists have no room for ids; and with chosen,
        where they have none for an expert that a token has more than once.
    """
    num_tokens, routed = len(logits), logits.shape[1]
    experts = _experts(routed)
    if routed > lists.num_experts and lists.ids is None:
        raise InvariantError(f"a route to {routed} got lists of {lists.num_experts} experts, and no room for ids")
    if chosen is not None and not lists.repeats:
        raise InvariantError("experts that tokens say themselves got lists that have room for each once")
    if rules.shared and lists.num_experts != routed + 1:
        raise InvariantError(f"a route to {routed} and one that all rows have got lists of {lists.num_experts} experts")
    rows = 1 if num_tokens <= FEW_TOKENS else _ROWS
    moe_route_kernel[(triton.cdiv(num_tokens, rows),)](
        logits,
        bias,
        gain,
        chosen,
        gate,
        ids,
        weights,
        lists.ids,
        num_real,
        lists.pairs,
        lists.counters,
        lists.items,
        num_tokens,
        lists.width(num_tokens),
        logits.stride(0),
        0 if chosen is None else chosen.stride(0),
        0 if gate is None else gate.stride(0),
        lists.pairs.stride(0),
        NUM_ROUTED=routed,
        NUM_EXPERTS=lists.num_experts,
        TOP_K=lists.top_k,
        **_constants(rules),
        ROWS=rows,
        EXPERTS=experts,
        LEVELS=experts.bit_length() - 1,
        CHOICES=triton.next_power_of_2(lists.top_k),
        num_warps=_warps(rows, experts),
        enable_fp_fusion=False,
    )


def _constants(rules: Rules) -> dict[str, object]:
    groups = rules.groups or Groups(0, 0, 0)
    return {
        "RENORMALIZE": rules.renormalize,
        "SCORES": rules.scores,
        "FACTOR": rules.factor,
        "EPS": rules.eps,
        "MARGIN": rules.margin,
        "BY_LOGITS": rules.by_logits,
        "SHARED": rules.shared,
        "GROUPS": groups.count,
        "KEPT": groups.kept,
        "BEST": groups.best,
        "PLACES": int(triton.next_power_of_2(max(groups.count, 1))),
    }


def _experts(num_experts: int) -> int:
    return max(32, int(triton.next_power_of_2(num_experts)))


def _warps(rows: int, experts: int) -> int:
    """A row of many experts would not stay in the registers of one."""
    return 1 if rows == 1 and experts <= 512 else 4


def aot_cases() -> list[AotCase]:
    def case(
        num_experts: int,
        top_k: int,
        rows: int,
        rules: Rules,
        max_registers: int,
        has_bias: bool = False,
        architectures: tuple[int, ...] = (90,),
        more: dict[str, str] | None = None,
        routed: int | None = None,
    ) -> AotCase:
        """Nothing in it is an architecture's own: on all of them is the one with the most in it.

        Args: more: types of what else it reads and writes. routed: where that is more than there are experts.
        """
        routed = routed or num_experts
        experts = _experts(routed)
        names = ("ids", "num_real", "pairs", "counters", "items")
        floats = ("logits", "weights", *(("bias",) if has_bias else ()))
        pointers = dict.fromkeys(floats, "*fp32") | dict.fromkeys(names, "*i32") | (more or {})
        numbers = ("num_tokens", "width", "logits_stride", "chosen_stride", "gate_stride", "pairs_stride")
        missing = ("bias", "gain", "chosen_ids", "gate", "listed_ids")
        return AotCase(
            f"moe_route.{num_experts}.{rows}{'.groups' if rules.groups else ''}"
            f"{''.join('.' + role for role in more or ())}{'.roots' * (rules.scores == 'root_softplus')}"
            f"{'.shared' * rules.shared}",
            moe_route_kernel,
            pointers | dict.fromkeys(numbers, "i32"),
            {
                "NUM_ROUTED": routed,
                "NUM_EXPERTS": num_experts + rules.shared,
                "TOP_K": top_k + rules.shared,
                **_constants(rules),
                **{role: None for role in missing if role not in pointers},
                "ROWS": rows,
                "EXPERTS": experts,
                "LEVELS": experts.bit_length() - 1,
                "CHOICES": int(triton.next_power_of_2(top_k + rules.shared)),
            },
            num_warps=_warps(rows, experts),
            aligned=(*floats, "ids", "pairs", "counters", "items", "logits_stride"),
            max_registers=max_registers,
            max_shared=16 << 10,
            words={architecture: ("ATOMG", "LDG.E.128") for architecture in architectures},
            architectures=architectures,
        )

    plain, of_all = Rules(True), Rules(False)
    deepseek = Rules(True, "sigmoid", Groups(8, 4, 2), 2.5)
    beside = Rules(True, "sigmoid", Groups(8, 4, 2), 2.5, shared=True)
    roots = Rules(True, "root_softplus", factor=1.5)
    return [
        case(128, 8, 1, plain, 96),
        case(128, 8, _ROWS, plain, 128),
        case(60, 4, _ROWS, of_all, 128),
        case(256, 8, 1, deepseek, 128, has_bias=True),
        case(256, 8, _ROWS, deepseek, 255, True, ARCHITECTURES),
        case(256, 8, 1, beside, 128, has_bias=True),
        case(512, 10, 1, Rules(True, shared=True), 168, more={"gate": "*fp32"}),
        case(256, 6, 1, roots, 128, has_bias=True),
        case(256, 6, 1, roots, 128, more={"chosen_ids": "*fp32"}),
        case(512, 12, 1, Rules(False, factor=6.0), 168, has_bias=True, more={"listed_ids": "*i32"}, routed=768),
    ]
