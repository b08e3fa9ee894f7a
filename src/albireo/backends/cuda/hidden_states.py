"""DeviceHiddenStates: hidden states of tokens in device memory, kept for a head that drafts.

What execution/draft_head.py's HiddenStates are on a processor, by the same places. The model leaves them here behind
the launches of each of its steps (model.py), which is no part of a recording; the head reads and writes them by slots
that the host names. Does not know which layer they are of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.staging import Staging
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import NOTHING
from albireo.graph.outputs import NEXT_OF_LOGITS, NEXT_OF_TOP, TAP
from albireo.graph.program import Program

Ints = NDArray[np.int32]

#: Rows that are kept at once: what that takes beside them is little.
_ROWS = 1024


class DeviceHiddenStates:
    """Of each place of the KV cache the hidden state of its token.

    Args:
        num_blocks: there are at first. width: numbers of one. is_exact: float32; else bfloat16.
        group, unit: of block tables, whose layers see all positions; and what kernels count a block of them as.
        combine: what makes [n, width] of those of several layers, side by side; None: there is one.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        width: int,
        device: torch.device,
        *,
        is_exact: bool,
        group: int = 0,
        unit: int = 1,
        combine: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        self._block_size, self._width, self._device = block_size, width, device
        self._dtype = torch.float32 if is_exact else torch.bfloat16
        self._group, self._unit, self._combine = group, unit, combine
        self.take_blocks(num_blocks)

    def take_blocks(self, num_blocks: int) -> None:
        """Keep those of so many blocks, in place of those there were."""
        self._flat = torch.zeros(0, device=self._device)  # the old ones go first
        shape = (num_blocks * self._block_size, self._width)
        self._flat = torch.zeros(shape, dtype=self._dtype, device=self._device)

    def keep(self, taps: Sequence[torch.Tensor], staging: Staging, sizes: Mapping[str, int]) -> None:
        """Those of all rows of a step, behind its launches. Args: taps: [T, any] each. sizes: as it was staged."""
        count = len(taps[0])
        slots = staging.slots(sizes, self._group)[:count].long()
        if self._unit != 1:
            size = self._block_size
            slots = slots // (size * self._unit) * size + slots % size
        for start, end in _pieces(count):
            some = [each[start:end] for each in taps]
            rows = some[0] if len(some) == 1 else torch.cat(some, dim=1)
            self._put(slots[start:end], rows if self._combine is None else self._combine(rows))

    def slots(self, inputs: StepInputs) -> Ints:
        """[T] where those of a step's rows lie."""
        return inputs.slots if inputs.group_slots is None else np.ascontiguousarray(inputs.group_slots[self._group])

    def write(self, slots: Ints, rows: torch.Tensor) -> None:
        """Args: rows: [n, width] float32."""
        self._put(self._there(slots), rows)

    def read(self, slots: Ints) -> torch.Tensor:
        """[n, width] float32."""
        return self._flat[self._there(slots)].float()

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy those of whole blocks (source, target), in order."""
        blocks = self._flat.view(-1, self._block_size, self._width)
        for source, target in pairs:
            blocks[target].copy_(blocks[source])

    def _put(self, slots: torch.Tensor, rows: torch.Tensor) -> None:
        self._flat[slots] = rows.to(self._dtype)

    def _there(self, slots: Ints) -> torch.Tensor:
        return torch.from_numpy(slots.astype(np.int64)).to(self._device)


def is_told(name: str) -> bool:
    """Whether an output of a program goes to the host: neither hidden states nor what stands for them does."""
    return not name.startswith(TAP) and name not in (NEXT_OF_LOGITS, NEXT_OF_TOP)


def taps_of(program: Program) -> list[str]:
    """Outputs that are hidden states, in order."""
    return [name for name in program.outputs if name.startswith(TAP)]


def following_of(program: Program, output: Callable[[str, int], torch.Tensor], num_rows: int, num_top: int) -> Any:
    """[S, E] what a head left of the rows that are drawn from, on the device; nothing of another program's step."""
    if NEXT_OF_TOP not in program.outputs:
        return NOTHING
    return torch.cat([output(NEXT_OF_LOGITS, num_rows), output(NEXT_OF_TOP, num_top)])


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))
