"""Which running sequence gives its blocks back when there are too few, and how it gets its tokens back later.

Called by scheduler.py. Does not know which blocks there are, budgets, or how fast anything is: the device says what
moving a block costs.
"""

from __future__ import annotations

from typing import Literal

from albireo.engine.request import Sequence

#: recompute: drop the blocks, compute the tokens again (hits shorten that). swap: keep them in host memory meanwhile.
Method = Literal["recompute", "swap"]


def choose_victim(running: list[Sequence]) -> Sequence:
    """The last in order goes: worst priority, then last arrived, then the highest index of a request.

    Since running sequences are scheduled in the same order, a victim is never one already in the plan, and the first
    in order always gets on.

    Args: running: in order, at least one.
    """
    return running[-1]


def choose_method(*, num_alone: int, num_blocks: int, num_free: int, block_cost: float) -> Method:
    """Swap what takes longer to compute again than to move there and back, where there is room for all of it.

    Tokens whose blocks other sequences hold too are likely to be found again, and count as free to recompute. The
    victim's own blocks may be found as well, if nobody takes them by then; that is not counted on.

    Args:
        num_alone: computed tokens that no other sequence holds.
        num_blocks: blocks to be moved; num_free: host blocks there are.
        block_cost: see EngineSettings.swap_cost_tokens.
    """
    if 0 < num_blocks <= num_free and num_alone > num_blocks * block_cost:
        return "swap"
    return "recompute"
