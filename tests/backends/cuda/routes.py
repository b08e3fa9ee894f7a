"""What the route of experts gives, in lists of pairs, on the stand-in for a GPU."""

from __future__ import annotations

import torch

from albireo.backends.cuda import expert_plan
from albireo.backends.cuda.chip import chip_of
from albireo.backends.cuda.expert_list import ITEM_FIELDS, ExpertList, expert_list
from albireo.backends.cuda.kernels.moe_route import Rules, moe_route

CPU = torch.device("cpu")


def real(count: int) -> torch.Tensor:
    return torch.tensor([count], dtype=torch.int32)


def routed(
    logits: torch.Tensor,
    top_k: int,
    renormalize: bool = True,
    num_real: int | None = None,
    dtype: str = "bfloat16",
    rules: Rules | None = None,
    bias: torch.Tensor | None = None,
    gain: torch.Tensor | None = None,
    chosen: torch.Tensor | None = None,
    num_experts: int | None = None,
    gate: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor, ExpertList]:
    """rules: None: those of a softmax. num_experts: None: all that is routed, and what all rows have."""
    num_tokens, num_routed = logits.shape
    num_experts = num_experts or num_routed + (rules is not None and rules.shared)
    widest, repeats = expert_plan.widest(dtype, chip_of(CPU)), chosen is not None
    lists = expert_list(num_experts, top_k, num_tokens, CPU, widest, num_routed, repeats)
    ids = torch.full((num_tokens, top_k), -1, dtype=torch.int32)
    weights = torch.full((num_tokens, top_k), torch.nan)
    rules = rules or Rules(renormalize)
    are_real = real(num_tokens if num_real is None else num_real)
    moe_route(logits, ids, weights, lists, are_real, rules, bias, gain, chosen, gate)
    return ids, weights, lists


def listed(lists: ExpertList, num_tokens: int) -> dict[int, list[int]]:
    """Pairs of each expert, by the items alone; each item is as long as a tile at most, all but an expert's last one as
    long as a tile."""
    width, found = lists.width(num_tokens), {}
    items = lists.items.view(-1, ITEM_FIELDS)
    count = int(items[0, 0])
    assert count <= lists.most_items(num_tokens)
    for expert, first, pairs in items[1 : 1 + count, :3].tolist():
        mine = found.setdefault(expert, [])
        assert first == len(mine) and first % width == 0 and 0 < pairs <= width
        mine += lists.pairs[expert, first : first + pairs].tolist()
    return found
