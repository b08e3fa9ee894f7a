"""An expert that every row has, behind those that it chooses: by 1, or by the sigmoid of a gate; lists, weights, and
what is summed, with a norm's rows behind the sum."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from checks import Finding, worst
from checks_of_linears import gated_of
from expert_layer import ExpertLayer, products_of
from setup import Setup

#: Experts and choices with the shared one, hidden size, and channels of an expert.
SHAPE = (65, 9, 2048, 512)


def shared(setup: Setup) -> Iterator[Finding]:
    from albireo.backends.cuda.expert_linear import expert_linear
    from albireo.backends.cuda.expert_list import ITEM_FIELDS, expert_list
    from albireo.backends.cuda.kernels.moe_combine import moe_combine
    from albireo.backends.cuda.kernels.moe_route import Groups, Rules, moe_route
    from albireo.backends.cuda.kernels.parts.row_squares import RowParts

    most = setup.pick(300, 9)
    layer = ExpertLayer.of(setup, "bfloat16", most, shape=SHAPE)
    count, top_k, hidden, inner = layer.shape
    routed, lists, device = count - 1, layer.lists, setup.device
    rule = {"renormalize": True, "scores": "sigmoid", "groups": setup.pick(Groups(8, 4, 2), None), "factor": 2.5}
    bias, gain = 0.1 * setup.random(routed, seed=7), 1 + 0.1 * setup.random(hidden, seed=9)
    for tokens, has_gate in ((1, False), (setup.pick(33, 5), True), (most, True)):
        what, real = f"shared expert, {tokens} tokens", max(1, tokens - 2)
        logits, num_real = setup.random(tokens, routed, seed=5), torch.tensor([real], dtype=torch.int32, device=device)
        gate = setup.random(tokens, 1, seed=6) if has_gate else None
        ids = torch.empty((tokens, top_k), dtype=torch.int32, device=device)
        weights = torch.empty((tokens, top_k), device=device)
        moe_route(logits, ids, weights, lists, num_real, Rules(**rule, shared=True), bias, gate=gate)
        others = torch.empty((tokens, top_k - 1), dtype=torch.int32, device=device)
        by = torch.empty((tokens, top_k - 1), device=device)
        alone = expert_list(routed, top_k - 1, most, device)
        moe_route(logits, others, by, alone, num_real, Rules(**rule), bias)
        is_same = (
            torch.equal(ids[:, :-1], others) and torch.equal(weights[:, :-1], by) and bool((ids[:, -1] == routed).all())
        )
        yield _said(f"{what}: the others'", is_same, "ids or weights are not those of a route without it")
        own = torch.ones((tokens, 1), dtype=torch.float64, device=device) if gate is None else gate.double().sigmoid()
        yield worst(f"{what}: its weight", weights[:, -1:], own, 2.0**-20 * own)
        items = lists.items.view(-1, ITEM_FIELDS)
        listed = items[1 : 1 + int(items[0, 0]), :3].tolist()
        pairs = [pair for e, first, size in listed for pair in lists.pairs[e, first : first + size].tolist()]
        is_whole = sorted(pairs) == list(range(real * top_k))
        is_last = pairs[-real:] == [top_k * row + top_k - 1 for row in range(real)]
        yield _said(f"{what}: lists", is_whole and is_last, f"{len(pairs)} pairs; its own: {pairs[-real:][:8]}")

        x = setup.random(tokens, hidden, dtype=torch.bfloat16, seed=8)
        gated = torch.empty((tokens * top_k, inner), dtype=torch.bfloat16, device=device)
        products = torch.full((len(gated), hidden), float("nan"), device=device)
        out, residual = torch.empty((tokens, hidden), device=device), setup.random(tokens, hidden, seed=4)
        squares = torch.empty((tokens, -(-hidden // 64)), device=device)
        parts = RowParts(gain, torch.empty_like(out, dtype=torch.bfloat16), squares)
        expert_linear(x, layer.gate_up, gated, lists, act="silu_mul", workspace=layer.room)
        expert_linear(gated, layer.down, products, lists, workspace=layer.room)
        moe_combine(products, weights, out, residual, num_real, parts)
        there, rows = ids[:real], gated[: real * top_k]
        wide = x[:real].double().repeat_interleave(top_k, 0)
        yield worst(f"{what}: gate_up", rows, *gated_of(*products_of(layer.gate_up, x, wide, there, count)))
        wanted, allowed = products_of(layer.down, rows, rows.double(), there, count)
        yield worst(f"{what}: down", products[: len(rows)], wanted, allowed + 2.0**-22 * wanted.abs())
        terms = weights[:real].double()[:, :, None] * products[: len(rows)].double().view(real, top_k, -1)
        whole, sizes = residual.double(), residual.double().abs()
        whole[:real] += terms.sum(1)
        sizes[:real] += terms.abs().sum(1)
        yield worst(f"{what}: sum, padding as well", out, whole, (top_k + 1) * 2.0**-23 * sizes)
        scaled = out.double() * gain.double()
        yield worst(f"{what}: a norm's rows", parts.scaled, scaled, 2.0**-8 * scaled.abs())
        of_pieces = out.double().square().view(tokens, -1, 64).sum(2) if hidden % 64 == 0 else None
        if of_pieces is not None:
            yield worst(f"{what}: a norm's squares", parts.squares, of_pieces, 2.0**-20 * of_pieces)


def _said(what: str, is_good: bool, where: str) -> Finding:
    return Finding(what, 0.0 if is_good else float("inf"), where)


CHECKS = {"shared expert": shared}
