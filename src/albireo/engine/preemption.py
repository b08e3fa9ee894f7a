"""Which running sequence gives its blocks back when there are too few, and how.

Called by scheduler.py. Does not know blocks or budgets; a cost model for swapping will be asked here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albireo.engine.request import Sequence


@dataclass(frozen=True, slots=True)
class Preemption:
    """One decision. recompute: drop the blocks, compute the tokens again later (hits shorten that)."""

    victim: Sequence
    method: Literal["recompute"] = "recompute"


def choose_preemption(running: list[Sequence]) -> Preemption:
    """The last in order goes: worst priority, then last arrived, then the highest index of a request.

    Since running sequences are scheduled in the same order, a victim is never one already in the plan, and the first
    in order always gets on.

    Args: running: in order, at least one.
    """
    return Preemption(running[-1])
