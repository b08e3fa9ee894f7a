"""Which experts compute a token, and the lists of them, against numpy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from albireo.backends.cuda.expert_linear import expert_linear
from albireo.backends.cuda.expert_list import expert_list, most_items, tile_width
from albireo.backends.cuda.kernels.moe_combine import moe_combine
from albireo.backends.cuda.kernels.moe_route import Groups, Rules, moe_route
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.experts import route
from albireo.errors import InvariantError
from backends.cuda.linears import random
from backends.cuda.routes import CPU, listed, real, routed


@pytest.mark.parametrize("renormalize", [True, False])
@pytest.mark.parametrize(("tokens", "num_experts", "top_k"), [(1, 8, 2), (5, 60, 4), (70, 7, 3), (9, 33, 8)])
def test_the_best_experts_and_their_weights(tokens: int, num_experts: int, top_k: int, renormalize: bool) -> None:
    logits = random(tokens, num_experts + 3, seed=1)[:, :num_experts] * 3
    ids, weights, lists = routed(logits, top_k, renormalize)
    order = np.argsort(-logits.numpy(), axis=1, kind="stable")[:, :top_k]
    assert np.array_equal(ids.numpy(), order)
    exact = torch.softmax(logits.double(), 1).gather(1, ids.long())
    if renormalize:
        exact /= exact.sum(1, keepdim=True)
    # exp of a difference that was rounded, sums, a division
    assert ((weights - exact).abs() <= exact * 2.0**-23 * (20 + num_experts.bit_length())).all()
    wanted = {e: sorted(np.flatnonzero(ids.numpy().ravel() == e).tolist()) for e in set(ids.numpy().ravel().tolist())}
    assert {e: sorted(pairs) for e, pairs in listed(lists, tokens).items()} == wanted
    assert not lists.counters.any(), "zero for the next layer"


@pytest.mark.parametrize("tokens", [3, 70])
@pytest.mark.parametrize(
    ("num_experts", "top_k", "rules", "has_bias", "has_gain"),
    [
        (12, 3, Rules(True, "sigmoid", Groups(4, 2, 2), 2.5), True, False),
        (33, 4, Rules(False, "sigmoid"), False, False),
        (33, 4, Rules(True, "sigmoid", eps=0.5), True, False),
        (33, 4, Rules(True, "sigmoid", by_logits=True), True, False),
        (40, 6, Rules(True), True, False),
        (40, 6, Rules(False, "softmax", Groups(8, 3, 1), 16.0), False, False),
        (33, 6, Rules(True), False, True),
        (16, 2, Rules(False, margin=0.2), False, False),
        (33, 4, Rules(False, margin=0.5, factor=2.0), False, True),
        (21, 4, Rules(True, "root_softplus", factor=1.5), True, False),
    ],
)
def test_choices_by_a_bias_and_in_groups_are_those_of_the_reference(
    num_experts: int, top_k: int, rules: Rules, has_bias: bool, has_gain: bool, tokens: int
) -> None:
    logits = random(tokens, num_experts, seed=1) * 2
    bias = random(1, num_experts, seed=2)[0] * 0.3 if has_bias else None
    gain = random(1, num_experts, seed=3)[0] if has_gain else None
    ids, weights, lists = routed(logits, top_k, rules=rules, bias=bias, gain=gain)
    attrs: dict[str, Any] = {"top_k": top_k, "renormalize": rules.renormalize, "factor": rules.factor or 1.0}
    attrs |= {name: each for name in ("eps", "margin") if (each := getattr(rules, name)) is not None}
    attrs |= {"by_logits": True} if rules.by_logits else {}
    attrs["scores"] = rules.scores
    if rules.groups is not None:
        attrs |= {"num_groups": rules.groups.count, "kept_groups": rules.groups.kept, "group_best": rules.groups.best}
    vectors = {"bias": bias, "gain": gain}
    inputs = {"x": logits.numpy()} | {role: each.numpy() for role, each in vectors.items() if each is not None}
    step: Any = None  # which rows there are says nothing here
    wanted_ids, wanted = route(OpCall(inputs, attrs, step))
    np.testing.assert_array_equal(ids.numpy(), wanted_ids)
    np.testing.assert_allclose(weights.numpy(), wanted, rtol=1e-5)
    assert sum(len(pairs) for pairs in listed(lists, tokens).values()) == tokens * top_k
    some_ids, some, _ = routed(logits[[2, 0]].contiguous(), top_k, rules=rules, bias=bias, gain=gain)
    assert torch.equal(some, weights[[2, 0]]) and torch.equal(some_ids, ids[[2, 0]])


@pytest.mark.parametrize("tokens", [1, 3, 70])
@pytest.mark.parametrize(
    ("num_experts", "rules", "has_gate"),
    [
        (32, Rules(True, "sigmoid", Groups(4, 2, 2), 2.5, shared=True), False),
        (33, Rules(True, shared=True), True),
        (40, Rules(False, factor=2.0, shared=True), True),
    ],
)
def test_an_expert_that_all_rows_have(num_experts: int, rules: Rules, has_gate: bool, tokens: int) -> None:
    """Behind those that are chosen, which are what they are without it; padding rows are in no list."""
    logits, gate = random(tokens, num_experts, seed=1) * 2, random(tokens, 1, seed=2) * 4 if has_gate else None
    bias = random(1, num_experts, seed=3)[0] if rules.groups else None
    count = max(1, tokens - 1)
    ids, weights, lists = routed(logits, 5, num_real=count, rules=rules, bias=bias, gate=gate)
    alone = replace(rules, shared=False)
    wanted_ids, wanted, others = routed(logits, 4, num_real=count, rules=alone, bias=bias)
    assert torch.equal(ids[:, :4], wanted_ids) and torch.equal(weights[:, :4], wanted)
    assert (ids[:, 4] == num_experts).all() and not lists.counters.any()
    by = torch.ones(tokens) if gate is None else torch.sigmoid(gate.double()[:, 0])
    assert ((weights[:, 4] - by).abs() <= 2.0**-20 * by).all()
    found = listed(lists, tokens)
    assert found.pop(num_experts) == [5 * row + 4 for row in range(count)]
    of_five = {e: [pair // 5 * 4 + pair % 5 for pair in pairs] for e, pairs in found.items()}
    assert {e: sorted(pairs) for e, pairs in of_five.items()} == {
        e: sorted(pairs) for e, pairs in listed(others, tokens).items()
    }


def test_lists_have_to_have_room_for_what_all_rows_have() -> None:
    with pytest.raises(InvariantError, match="one that all rows have got lists of 8 experts"):
        routed(random(2, 8, seed=1), 3, rules=Rules(True, shared=True), num_experts=8)


@pytest.mark.parametrize("tokens", [3, 70])
def test_experts_that_tokens_say_themselves(tokens: int) -> None:
    """Nothing is compared; what is no expert's number is the first one's; scores that are nearly nothing."""
    logits = random(tokens, 21, seed=2) * 8
    logits[1] -= 60
    chosen = torch.stack([torch.randperm(21, generator=torch.Generator().manual_seed(i))[:4] for i in range(tokens)])
    chosen = chosen.float()
    chosen[2] = torch.tensor([torch.nan, -1.0, 20.0, 1e9])
    rules = Rules(True, "root_softplus", factor=1.5)
    ids, weights, lists = routed(logits, 4, rules=rules, chosen=chosen)
    attrs = {"top_k": 4, "renormalize": True, "scores": "root_softplus", "factor": 1.5}
    step: Any = None
    wanted_ids, wanted = route(OpCall({"x": logits.numpy(), "chosen": chosen.numpy()}, attrs, step))
    np.testing.assert_array_equal(ids.numpy(), wanted_ids)
    np.testing.assert_allclose(weights.numpy(), wanted, rtol=2e-5, atol=1e-8)
    assert sum(len(pairs) for pairs in listed(lists, tokens).values()) == tokens * 4
    _, alone, _ = routed(logits[:1], 4, rules=rules, chosen=chosen[:1])
    assert torch.equal(alone, weights[:1])


def test_a_table_may_have_an_expert_several_times_for_a_token() -> None:
    """As one that nobody filled, all zeros: its expert then has more pairs than there are tokens."""
    tokens, num_experts, top_k, n, k = 70, 3, 4, 40, 64
    chosen = torch.full((tokens, top_k), num_experts - 1.0)
    chosen[::7, 1:] = 0.0
    ids, weights, lists = routed(random(tokens, num_experts, seed=1), top_k, chosen=chosen)
    assert torch.equal(ids, chosen.int()) and not lists.counters.any()
    wanted = {e: torch.nonzero(chosen.flatten() == e).flatten().tolist() for e in (0, num_experts - 1)}
    assert {e: sorted(pairs) for e, pairs in listed(lists, tokens).items()} == wanted
    x = random(tokens, k, dtype=torch.bfloat16, seed=2)
    matrix = random(num_experts * n, k, dtype=torch.bfloat16, seed=3)
    out = torch.full((tokens * top_k, n), torch.nan)
    expert_linear(x, DeviceMatrix("bfloat16", len(matrix), k, matrix), out, lists)
    each = torch.einsum("tk,enk->ten", x.double(), matrix.double().view(num_experts, n, k))
    exact = each[torch.arange(tokens)[:, None], ids.long()].flatten(0, 1)
    assert (out - exact).abs().max() <= 1e-4 * exact.abs().max()
    once = expert_list(num_experts, top_k, tokens, CPU)
    with pytest.raises(InvariantError, match="room for each once"):
        moe_route(random(tokens, num_experts, seed=1), ids, weights, once, real(tokens), Rules(True), chosen=chosen)


@pytest.mark.parametrize("tokens", [5, 70])
def test_experts_that_give_back_what_they_read(tokens: int) -> None:
    """Ids behind the last expert are in no list; their pairs are added as nothing, and as what they have read."""
    num_experts, num_routed, top_k, n = 6, 9, 4, 30
    rules, logits = Rules(False, factor=6.0), random(tokens, num_routed, seed=1) * 2
    bias = random(1, num_routed, seed=2)[0] * 0.1
    ids, weights, lists = routed(logits, top_k, rules=rules, bias=bias, num_experts=num_experts, num_real=tokens - 1)
    whole_ids, whole, _ = routed(logits, top_k, rules=rules, bias=bias)
    assert torch.equal(ids, whole_ids) and torch.equal(weights, whole) and int(ids.max()) >= num_experts
    pairs = {pair for found in listed(lists, tokens).values() for pair in found}
    assert pairs == set(torch.nonzero((ids[:-1] < num_experts).flatten()).flatten().tolist())
    assert lists.ids is not None and torch.equal(lists.ids.view(tokens, top_k), ids)
    assert not lists.counters.any()
    x, kept = random(tokens * top_k, n, seed=5), random(tokens, n, seed=6)
    is_computed = (ids < num_experts).flatten()
    x[~is_computed] = torch.nan
    residual, out, given = random(tokens, n, seed=7), torch.empty(tokens, n), torch.empty(tokens, n)
    moe_combine(x, weights, out, residual, real(tokens - 1), ids=lists.ids, num_experts=num_experts)
    terms = weights.flatten()[:, None] * torch.where(is_computed[:, None], x, 0.0)
    added = terms.view(tokens, top_k, n)
    wanted = residual + (((added[:, 0] + added[:, 1]) + added[:, 2]) + added[:, 3])
    assert torch.equal(out[:-1], wanted[:-1]) and torch.equal(out[-1], residual[-1])
    moe_combine(kept, weights, given, out, real(tokens - 1), None, lists.ids, num_experts, keeps=True)
    whole = torch.where(ids >= num_experts, weights, 0.0).double().sum(1)
    error = (out.abs() + 8 * whole[:, None].abs() * kept.abs()) * 2.0**-23
    assert ((given - (out + whole[:, None] * kept)).abs() <= error).all()


def test_a_route_to_more_than_lists_know_is_refused() -> None:
    ids, weights = torch.empty(2, 2, dtype=torch.int32), torch.empty(2, 2)
    with pytest.raises(InvariantError, match="a route to 9 got lists of 6 experts"):
        moe_route(random(2, 9, seed=1), ids, weights, expert_list(6, 2, 2, CPU), real(2), Rules(True))


def test_equal_logits_go_to_the_lowest_expert_and_nan_to_the_front() -> None:
    logits = torch.tensor(
        [[1.0, 2.0, 2.0, -0.0, 0.0], [0.0, -0.0, 0.0, -0.0, 0.0], [5.0, -torch.inf, torch.nan, 7.0, 1.0]]
    )
    ids, weights, _ = routed(logits, 3)
    assert ids.tolist() == [[1, 2, 0], [0, 1, 2], [2, 3, 0]]
    assert weights[0, 0] == weights[0, 1] and weights[2].isnan().all()
    ids, _, _ = routed(torch.zeros(2, 4), 4)
    assert ids.tolist() == [[0, 1, 2, 3]] * 2, "no expert twice"


def test_rows_of_routing_have_the_same_bits_in_any_company() -> None:
    logits = random(80, 40, seed=1)
    for renormalize in (True, False):
        ids, weights, _ = routed(logits, 4, renormalize)
        for rows in ([3], [79, 3, 50], list(range(79, 9, -1))):
            some_ids, some_weights, _ = routed(logits[rows].contiguous(), 4, renormalize)
            assert torch.equal(some_ids, ids[rows]) and torch.equal(some_weights, weights[rows])


@pytest.mark.parametrize("tokens", [6, 100])
def test_padding_tokens_are_in_no_list(tokens: int) -> None:
    logits = random(tokens, 8, seed=1)
    logits[tokens - 2 :] = torch.nan
    ids, _, lists = routed(logits, 2, num_real=tokens - 2)
    pairs = sorted(pair for mine in listed(lists, tokens).values() for pair in mine)
    assert pairs == list(range(2 * (tokens - 2)))
    assert ((ids >= 0) & (ids < 8)).all()
    _, _, lists = routed(logits, 2, num_real=0)
    assert listed(lists, tokens) == {}


def test_items_are_never_more_than_there_is_room_for() -> None:
    """All pairs to the same few experts, or spread as thin as can be."""
    for tokens, num_experts, top_k in ((1, 8, 2), (8, 8, 2), (65, 4, 3), (200, 128, 8), (33, 2, 1)):
        width = tile_width(tokens, num_experts, top_k)
        most = most_items(tokens, num_experts, top_k, width)
        for shares in range(1, num_experts // top_k + 1):
            counts = [0] * num_experts
            for token in range(tokens):
                for j in range(top_k):
                    counts[token % shares * top_k + j] += 1
            assert sum(-(-count // width) for count in counts) <= most
    assert [tile_width(t, 128, 8) for t in (1, 8, 64, 256, 2048)] == [8, 8, 8, 32, 128]
    assert [tile_width(t, 8, 2) for t in (1, 64, 256, 2048)] == [8, 32, 128, 128]
    assert most_items(1, 128, 8, 8) == 8
