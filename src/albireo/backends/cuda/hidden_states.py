"""DeviceHiddenStates: hidden states of tokens in device memory, kept for a head that drafts.

What execution/draft_head.py's HiddenStates are on a processor, by the same places. The model leaves them here at the
end of each of its steps, and the head reads and leaves them by slots that come with its own: launches of a step like
others (placed_program.py). Does not know which layer they are of.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from albireo.backends.cuda.kernels.move_rows import move_rows
from albireo.backends.cuda.staging import Columns
from albireo.backends.step_inputs import StepInputs
from albireo.graph.outputs import NEXT_OF_LOGITS, NEXT_OF_TOP, TAP
from albireo.graph.program import Program

_LOG = logging.getLogger(__name__)

Ints = NDArray[np.int32]

#: Arrays of a head's steps.
HEAD_COLUMNS: Columns = {"read_slots": ("T", np.int32), "leave_slots": ("S", np.int32)}
#: Rows of several layers that are put side by side at once: what that takes is little.
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
        self.group, self._unit, self._combine = group, unit, combine
        self._has_failed = False
        self.take_blocks(num_blocks)

    @property
    def is_combined(self) -> bool:
        """A program of its own makes them: its launches are none of the model's."""
        return self._combine is not None

    def take_blocks(self, num_blocks: int) -> None:
        """Keep those of so many blocks, in place of those there were."""
        self._flat = torch.zeros(0, device=self._device)  # the old ones go first
        shape = (num_blocks * self._block_size, self._width)
        self._flat = torch.zeros(shape, dtype=self._dtype, device=self._device)

    def keep(self, taps: Sequence[torch.Tensor], slots: torch.Tensor) -> None:
        """Those of all rows of a step of the model. Args: taps: [T, any] each. slots: [T] as kernels count them."""
        if self._combine is None:
            self._put(taps[0], slots)
            return
        try:
            for start, end in _pieces(len(slots)):
                rows = torch.cat([each[start:end] for each in taps], dim=1)
                self._put(self._combine(rows), slots[start:end])
        except Exception as error:
            # the step has its logits, and nobody's tokens depend on guesses
            if not self._has_failed:
                _LOG.warning("hidden states of a step are not kept, guesses from them will be wrong: %s", error)
            self._has_failed = True

    def _put(self, rows: torch.Tensor, slots: torch.Tensor) -> None:
        size = self._block_size
        move_rows(rows, self._flat, put=slots, size=size, span=size * self._unit)

    def leave(self, rows: torch.Tensor, slots: torch.Tensor) -> None:
        """What a head leaves. Args: rows: [n, width]. slots: [n] as the engine counts them."""
        move_rows(rows, self._flat, put=slots, size=self._block_size, span=self._block_size)

    def give(self, slots: torch.Tensor, out: torch.Tensor) -> None:
        """What a head reads, into out: [n, width]. Args: slots: [n] as the engine counts them."""
        move_rows(self._flat, out, taken=slots)

    def slots(self, inputs: StepInputs) -> Ints:
        """[T] where those of a step's rows lie."""
        return inputs.slots if inputs.group_slots is None else np.ascontiguousarray(inputs.group_slots[self.group])

    def read(self, slots: Ints) -> NDArray[np.float32]:
        """[n, width] copies on the host, to be looked at."""
        return np.asarray(self._flat[torch.from_numpy(slots.astype(np.int64))].float().cpu().numpy())

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy those of whole blocks (source, target), in order."""
        blocks = self._flat.view(-1, self._block_size, self._width)
        for source, target in pairs:
            blocks[target].copy_(blocks[source])


class HeadRows:
    """What a head's program reads and leaves: launches before its own, and behind them. Args: width: of hidden states.

    Attributes: given: [T, width] float32, what the step brings. states: where they are kept; None: nobody has said yet.
    """

    def __init__(self, num_rows: int, width: int, device: torch.device) -> None:
        self.given = torch.zeros((num_rows, width), dtype=torch.float32, device=device)
        self.states: DeviceHiddenStates | None = None

    def read(self, columns: Mapping[str, torch.Tensor]) -> None:
        if self.states is not None:
            slots = columns["read_slots"]
            self.states.give(slots, self.given[: len(slots)])

    def leave(self, columns: Mapping[str, torch.Tensor], output: Callable[[str, int], torch.Tensor], rows: int) -> None:
        """Args: rows: whose logits are wanted, before those whose best few are."""
        if self.states is not None:
            slots = columns["leave_slots"]
            self.states.leave(output(NEXT_OF_LOGITS, rows), slots[:rows])
            self.states.leave(output(NEXT_OF_TOP, len(slots) - rows), slots[rows:])


def head_rows_of(program: Program, device: torch.device) -> HeadRows | None:
    """None of a program that is no head."""
    if NEXT_OF_TOP not in program.outputs:
        return None
    (width,) = {int(call.attrs["width"]) for call in program.calls if call.family == "given"}
    return HeadRows(program.maxima["T"], width, device)


def taps_of(program: Program) -> list[str]:
    """Outputs that are hidden states, in order."""
    return [name for name in program.outputs if name.startswith(TAP)]


def is_told(name: str) -> bool:
    """Whether an output of a program goes to the host: neither hidden states nor what stands for them does."""
    return not name.startswith(TAP) and name not in (NEXT_OF_LOGITS, NEXT_OF_TOP)


def _pieces(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + _ROWS, count)) for start in range(0, count, _ROWS))
