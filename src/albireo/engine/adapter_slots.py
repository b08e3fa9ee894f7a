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
    """Invariant: no adapter is in two slots."""

    def __init__(self, num_slots: int) -> None:
        #: adapter of each slot, None: empty. Plans borrow it.
        self.held: list[int | None] = [None] * num_slots
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

    def pin(self, slot: int, adapter: int | None) -> None:
        """A sequence runs in the slot that find() gave."""
        if slot == NO_SLOT:
            return
        self.held[slot] = adapter
        self._order.remove(slot)
        self._order.append(slot)
