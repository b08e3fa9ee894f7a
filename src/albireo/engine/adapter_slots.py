"""AdapterSlots: which adapter is in which slot of the device, and who may have one next.

Called by scheduler.py. Knows adapters as numbers; does not know what they hold, or that anybody copies them.

A slot is pinned while a running sequence has its adapter. Of the others the one that was pinned longest ago is given
away first.
"""

from __future__ import annotations

from collections.abc import Iterable

from albireo.engine.request import Sequence

#: Of a token without an adapter.
NO_SLOT = -1


class AdapterSlots:
    """Invariants: no adapter is in two slots; num_running counts the running sequences that have one."""

    def __init__(self, num_slots: int) -> None:
        #: adapter of each slot, None: empty. Plans borrow it.
        self.held: list[int | None] = [None] * num_slots
        self.num_running = 0
        #: slots, pinned longest ago first
        self._order = list(range(num_slots))

    def find(self, adapter: int | None, running: Iterable[Sequence]) -> int | None:
        """The slot that a sequence with this adapter may run in: the adapter's own, else one that nobody runs in.

        Returns: NO_SLOT for one without; None when it has to wait. Cost: O(running) when the adapter is in no slot.
        """
        if adapter is None:
            return NO_SLOT
        if adapter in self.held:
            return self.held.index(adapter)
        pinned = {seq.request.adapter for seq in running}
        return next((slot for slot in self._order if self.held[slot] is None or self.held[slot] not in pinned), None)

    def enter(self, slot: int, seq: Sequence) -> None:
        """A sequence runs from now on, in the slot that find() gave."""
        seq.work.adapter_slot = slot
        if slot == NO_SLOT:
            return
        self.num_running += 1
        self.held[slot] = seq.request.adapter
        self._order.remove(slot)
        self._order.append(slot)

    def leave(self, seq: Sequence) -> None:
        """A sequence runs no more."""
        if seq.request.adapter is not None:
            self.num_running -= 1
