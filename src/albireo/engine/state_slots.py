"""StateSlots: where on the device each running sequence keeps what its recurrent layers carry from token to token.

Called by scheduler.py. Does not know what is kept there, nor that anybody copies it.

A slot is one sequence's from when it begins to run until it stops, and what it holds is changed by every step that the
sequence is in. So nothing of it can be shared, found again, or computed twice: whoever stops, or was in a step that
failed, begins anew.
"""

from __future__ import annotations

from albireo.engine.request import Sequence
from albireo.errors import InvariantError


class StateSlots:
    """Invariant: a slot is free or one running sequence's. With no slots at all, sequences keep nothing."""

    def __init__(self, num_slots: int) -> None:
        self.is_used = num_slots > 0
        self._free = list(range(num_slots - 1, -1, -1))
        #: (source, target) to be copied before the next step computes anything, in this order.
        self.copies: list[tuple[int, int]] = []

    def enter(self, seq: Sequence) -> None:
        """A sequence runs from now on. There is a slot for each that may."""
        if self.is_used:
            seq.work.state_slot = self._free.pop()

    def leave(self, seq: Sequence) -> None:
        """A sequence runs no more."""
        if self.is_used:
            self._free.append(seq.work.state_slot)
            seq.work.state_slot = NO_SLOT

    def fork(self, leader: Sequence, seq: Sequence) -> None:
        """seq, which has entered, goes on from where leader is."""
        if self.is_used:
            self.copies.append((leader.work.state_slot, seq.work.state_slot))

    def take_copies(self) -> list[tuple[int, int]]:
        """What the next plan is to copy first; it is asked for once."""
        copies, self.copies = self.copies, []
        return copies

    def check_invariants(self, running: list[Sequence], num_slots: int) -> None:
        """Raises: InvariantError. For tests."""
        held = [seq.work.state_slot for seq in running]
        if self.is_used and sorted([*held, *self._free]) != list(range(num_slots)):
            raise InvariantError(f"slots {held} are held and {self._free} are free, of {num_slots}")


#: Of a sequence that keeps nothing, or does not run.
NO_SLOT = -1
