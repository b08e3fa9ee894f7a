"""ExpertList: which pairs of a token and an expert a step has, by expert; on the device, where it is made.

Written by kernels/moe_route.py, read by kernels/moe_grouped_matmul.py; scratch.py holds the one that the layers of a
model share, one after another. Lists hold pairs, numbered token * top_k + choice, of real tokens: a padding token has
none, so it reads no weight. How many items there can be follows from shapes alone, how many there are is known on the
device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: An item: expert, its first pair in the expert's list, pairs. Items begin behind as many numbers, their count first.
ITEM_FIELDS = 4
#: Pairs of a tile, at least and at most.
_LEAST, _MOST = 8, 128


@dataclass(frozen=True, slots=True)
class ExpertList:
    """Room for the largest step.

    Fields:
        num_experts, top_k: of every layer.
        pairs: [num_experts, most tokens] int32: an expert's pairs, in any order; where a token may have an expert more
            than once, [num_experts, most tokens * top_k].
        counters: [num_experts + 1] int32, zero between launches: pairs of each expert, programs that have arrived.
        items: int32: see ITEM_FIELDS.
        ids: [most tokens * top_k] int32 the expert of each pair, where more is routed than there are experts: pairs of
            those behind the last are in no list; else None.
        widest: most pairs of a tile, of all matrices that are multiplied by it.
        fixed: pairs of a tile, whatever the step; for benchmarks, else None.
        repeats: a token may have an expert more than once: a table says which it has.
    """

    num_experts: int
    top_k: int
    pairs: torch.Tensor
    counters: torch.Tensor
    items: torch.Tensor
    ids: torch.Tensor | None = None
    widest: int = _MOST
    fixed: int | None = None
    repeats: bool = False

    def width(self, num_tokens: int) -> int:
        """Pairs of a tile in a step of so many tokens."""
        return self.fixed or min(self.widest, tile_width(num_tokens, self.num_experts, self.top_k))

    def most_items(self, num_tokens: int) -> int:
        """Items that such a step has at most."""
        return most_items(num_tokens, self.num_experts, self.top_k, self.width(num_tokens), self.repeats)


def expert_list(
    num_experts: int,
    top_k: int,
    max_tokens: int,
    device: torch.device,
    widest: int = _MOST,
    routed: int | None = None,
    repeats: bool = False,
) -> ExpertList:
    """routed: of what is chosen; None: of experts alone. repeats: see ExpertList."""

    def zeros(*shape: int) -> torch.Tensor:
        return torch.zeros(shape, dtype=torch.int32, device=device)

    most = most_items(max_tokens, num_experts, top_k, _LEAST, repeats)
    pairs, counters = zeros(num_experts, max_tokens * (top_k if repeats else 1)), zeros(num_experts + 1)
    ids = zeros(max_tokens * top_k) if routed is not None and routed > num_experts else None
    items = zeros((1 + most) * ITEM_FIELDS)
    return ExpertList(num_experts, top_k, pairs, counters, items, ids, widest, repeats=repeats)


def tile_width(num_tokens: int, num_experts: int, top_k: int) -> int:
    """A power of two: as wide as all tokens, or half as much again as an expert's pairs are on average.

    Narrower ones would read an expert's weights twice, wider ones multiply nothing.
    """
    wanted = min(num_tokens, -(-3 * num_tokens * top_k // (2 * num_experts)))
    return min(_MOST, max(_LEAST, 1 << (wanted - 1).bit_length()))


def most_items(num_tokens: int, num_experts: int, top_k: int, width: int, repeats: bool = False) -> int:
    """Tiles of width pairs, of an expert each, that num_tokens * top_k pairs can be cut into at most.

    Args: repeats: an expert may have more pairs than there are tokens.
    """
    num_pairs = num_tokens * top_k
    used = min(num_experts, num_pairs)
    most = used + (num_pairs - used) // width
    return most if repeats else min(most, used * -(-num_tokens // width))
