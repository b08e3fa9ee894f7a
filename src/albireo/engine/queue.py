"""A line of sequences in the order they should run: first come first served, or by priority.

Used by scheduler.py for those that wait and for those that run. Does not know why a sequence is in it.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from itertools import pairwise
from operator import attrgetter

from albireo.engine.request import Sequence
from albireo.errors import InvariantError

_order = attrgetter("order")


class Line:
    """Invariant: members are strictly ascending in order = (priority, arrival, index).

    Priority is 0 for all when the policy is first come first served, so one order serves both policies.
    A preempted sequence goes back to the place its arrival gives it.
    """

    __slots__ = ("members",)

    def __init__(self) -> None:
        #: Read freely; changed through the methods only.
        self.members: list[Sequence] = []

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self.members)

    def add(self, seq: Sequence) -> None:
        """Cost: O(log n) comparisons and one block move of pointers."""
        insort(self.members, seq, key=_order)

    def remove(self, seq: Sequence) -> None:
        """Raises: InvariantError when it is not in the line. Cost: as add."""
        idx = bisect_left(self.members, seq.order, key=_order)
        if idx == len(self.members) or self.members[idx] is not seq:
            raise InvariantError(f"sequence {seq.seq_id} (order {seq.order}) is not in this line of {len(self)}")
        del self.members[idx]

    def check_invariants(self) -> None:
        """Raises: InvariantError when the order is broken."""
        orders = [seq.order for seq in self.members]
        if any(a >= b for a, b in pairwise(orders)):
            raise InvariantError(f"line out of order: {orders}")
