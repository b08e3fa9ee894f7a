"""DeviceStates: what sequences keep beside the KV cache, in device memory, a slot each.

Owned by model.py, read and written by the recurrent kernels. Does not know sequences: a slot is whosever the
step says.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from albireo.backends.cuda.kernels.copy_blocks import copy_slots
from albireo.errors import InvariantError
from albireo.graph.program import StateLayout

#: States of a slot begin at multiples of so many numbers: 64 bytes, for wide loads.
_ALIGN = 16


class DeviceStates:
    """num_slots slots, zeros at first; a slot's states lie side by side, so that a copy is one piece.

    Raises: InvariantError when there is something to keep and no slot.
    """

    def __init__(self, layout: StateLayout, num_slots: int, device: torch.device) -> None:
        if layout and num_slots < 1:
            raise InvariantError("a program that keeps states of sequences has no slots for them")
        self._sizes = [size // 4 for size in layout.sizes]
        self._starts = [0]
        for size in self._sizes:
            self._starts.append(self._starts[-1] + -(-size // _ALIGN) * _ALIGN)
        #: [slots, numbers of a slot].
        self._numbers = torch.zeros((num_slots if layout else 0, self._starts[-1]), device=device)

    def of(self, index: int) -> torch.Tensor:
        """[slots, numbers] state number index of all slots; a view, rows as far apart as slots are."""
        start = self._starts[index]
        return self._numbers[:, start : start + self._sizes[index]]

    def copy(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Whole slots (source, target), as if one after another."""
        copy_slots(self._numbers, pairs)
