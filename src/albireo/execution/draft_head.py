"""Hidden states of tokens, kept for a head that drafts; and the head as a model that reads them.

The model's runner leaves them here (runner.py); what the head's runner executes is a HeadModel. They lie as the KV
cache does, by block and place in it, so that whoever shares a block shares them, and whoever gets it writes them anew.
Does not know which layer they are of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import DrawnTokens, StepOutputs
from albireo.execution.draft_ids import DraftIds
from albireo.execution.inputs import step_of
from albireo.step import SampleTask

F32 = NDArray[np.float32]
Ints = NDArray[np.int32]

#: Added before the lower half of a float32 goes, so that what is left is rounded, ties to even.
_HALF = np.uint32(0x7FFF)


class Steps(Protocol):
    """A program ready to run."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...


class StateStore(Protocol):
    """Where hidden states are kept, on a processor or a device."""

    def slots(self, inputs: StepInputs) -> Ints:
        """[T] where those of a step's rows lie."""
        ...

    def read(self, slots: Ints) -> F32:
        """[n, width]."""
        ...


class HiddenStates:
    """Of each place of the KV cache the hidden state of its token.

    Args:
        width: numbers of one. is_exact: float32; else bfloat16, which is what a head computes with at most.
        group: of block tables, whose layers see all positions.
        combine: what makes a row of width numbers of those of several layers; None: there is one.
    """

    def __init__(
        self,
        num_blocks: int,
        block_size: int,
        width: int,
        *,
        is_exact: bool,
        group: int = 0,
        combine: Steps | None = None,
    ) -> None:
        self._rows = np.zeros((num_blocks, block_size, width), np.float32 if is_exact else np.uint16)
        self._flat = self._rows.reshape(num_blocks * block_size, width)
        self._group, self._combine, self._is_exact = group, combine, is_exact

    @staticmethod
    def bytes_per_token(width: int, *, is_exact: bool) -> int:
        return width * (4 if is_exact else 2)

    def take(self, inputs: StepInputs, outputs: StepOutputs) -> None:
        """Keep those of all rows of a step of the model."""
        rows = outputs.taps
        if self._combine is not None:
            rows = self._combine.run(combining_step(rows, self._rows.shape[1])).hidden
        self.write(self.slots(inputs), rows)

    def slots(self, inputs: StepInputs) -> Ints:
        """[T] where those of a step's rows lie."""
        return inputs.slots if inputs.group_slots is None else np.ascontiguousarray(inputs.group_slots[self._group])

    def write(self, slots: Ints, rows: F32) -> None:
        """Args: rows: [n, width]."""
        self._flat[slots] = rows if self._is_exact else _rounded(rows)

    def read(self, slots: Ints) -> F32:
        """[n, width]."""
        rows = self._flat[slots]
        if self._is_exact:
            return rows
        return np.asarray((rows.astype(np.uint32) << np.uint32(16)).view(np.float32))

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy those of whole blocks (source, target), in order."""
        for source, target in pairs:
            self._rows[target] = self._rows[source]


def _rounded(rows: F32) -> NDArray[np.uint16]:
    bits = np.ascontiguousarray(rows).view(np.uint32)
    return ((bits + (_HALF + ((bits >> np.uint32(16)) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)


def combining_step(rows: Any, block_size: int) -> StepInputs:
    """A step that makes one row of several hidden states. Args: rows: [n, any] on its device; block_size: of tables."""
    empty = np.zeros((len(rows), 0), np.float32)
    return replace(step_of((empty,), None, (len(rows),), block_size), given=(rows,))


class HeadModel:
    """Implements runner.DeviceModel: a head that drafts, which reads hidden states where its tokens' places are.

    What it leaves itself of a row that is drawn from stands for the next place's hidden state, until the model has
    computed that token: so it goes on from there without anybody's help.

    Args: token_ids: the model's id of each of its own, of vocab_size there are, or those that it has just now; None:
        they are the same.
        reads_cache: it has no KV cache and computes one row of a sequence, at the last place whose keys the model has
            written, turned as the token behind it; then again, with what it left itself.
    """

    def __init__(
        self,
        model: Steps,
        states: HiddenStates,
        block_size: int,
        vocab_size: int,
        token_ids: Ints | DraftIds | None = None,
        *,
        reads_cache: bool = False,
    ) -> None:
        self._reads_cache = reads_cache
        self._model, self._states, self._block_size = model, states, block_size
        self._vocab_size, self._token_ids = vocab_size, token_ids

    def run(self, inputs: StepInputs) -> StepOutputs:
        ids = self._token_ids
        if isinstance(ids, DraftIds):
            ids.meet(inputs.token_ids)
            ids = ids.of_row
        outputs = self._run(inputs)
        return outputs if ids is None else self._renumbered(outputs, ids)

    def _run(self, inputs: StepInputs) -> StepOutputs:
        states, (read, left) = self._states, self._places(inputs)
        outputs = self._model.run(replace(self._turned(inputs), given=(states.read(read),)))
        states.write(left, outputs.following)
        return outputs

    def _turned(self, inputs: StepInputs) -> StepInputs:
        return replace(inputs, rope_positions=inputs.positions + 1) if self._reads_cache else inputs

    def _places(self, inputs: StepInputs) -> tuple[Ints, Ints]:
        """[T] where it reads, and [S] where it leaves what the next token of a sequence finds."""
        if self._reads_cache:
            slots = self._states.slots(inputs)
            return slots, slots[inputs.out_rows]
        rows = inputs.out_rows
        owner = np.searchsorted(inputs.query_start, rows, side="right") - 1
        places = inputs.positions[rows] + 1
        # the last place of a table is nobody's beginning: what is left there goes to the null block
        columns = places // self._block_size
        has_place = columns < inputs.block_table.shape[1]
        blocks = inputs.block_table[owner, np.where(has_place, columns, 0)]
        return inputs.slots, np.where(has_place, blocks * self._block_size + places % self._block_size, 0)

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        assert not pairs, "plans of a head move nothing"

    copy_states = swap_out = swap_in = copy_blocks

    def _renumbered(self, outputs: StepOutputs, token_ids: Ints) -> StepOutputs:
        """With the model's ids: what has none of the head's cannot be drawn."""
        top = outputs.top_ids
        logits = np.full((len(outputs.logits), self._vocab_size), -np.inf, np.float32)
        logits[:, token_ids] = outputs.logits
        return replace(outputs, logits=logits, top_ids=np.where(top < 0, top, token_ids[top]).astype(np.int32))


class DeviceHead(HeadModel):
    """Implements ahead.AheadDevice: a head on a device that keeps hidden states itself, and draws.

    Args: model: a program there, which reads and leaves them where its steps say. token_ids: where it has ids of its
        own its tokens are drawn by the host.
    """

    def __init__(
        self,
        model: Any,
        states: Any,
        block_size: int,
        vocab_size: int,
        token_ids: Ints | DraftIds | None = None,
        *,
        reads_cache: bool = False,
    ) -> None:
        super().__init__(model, states, block_size, vocab_size, token_ids, reads_cache=reads_cache)
        self._device = model

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        return bool(self._device.can_draw(tasks))

    def submit(
        self,
        inputs: StepInputs,
        tasks: Sequence[SampleTask],
        rows: Sequence[int],
        sources: Ints | None = None,
        targets: Sequence[tuple[int, int, int]] = (),
        has_drafts: bool = False,
    ) -> Any:
        assert sources is None, "plans of a head wait"
        return self._device.submit(self._placed(inputs), tasks, rows, targets=targets, has_drafts=has_drafts)

    def record_next(self) -> bool:
        return bool(self._device.record_next())

    def collect(self, ticket: Any) -> DrawnTokens:
        drawn: DrawnTokens = self._device.collect(ticket)
        return drawn

    def _run(self, inputs: StepInputs) -> StepOutputs:
        return self._model.run(self._placed(inputs))

    def _placed(self, inputs: StepInputs) -> StepInputs:
        read, left = self._places(inputs)
        return replace(self._turned(inputs), read_slots=read, leave_slots=left.astype(np.int32))
