"""AheadRunner: a device gets the next decoding step before this step's tokens are looked at.

Used instead of runner.py alone where a device computes beside the host. While it computes step n + 1, the host reports
step n, plans n + 1 and finds it computed. The engine knows nothing of it: what is submitted ahead is a guess (everyone
who decoded goes on, with the token that the device itself found), and a row is used only where the plan asks for
exactly that row. Since a row's bits do not depend on the rows beside it, others are computed as a step of their own.
Behind a plan that waits nothing is submitted: the step after it may have drafts, which are guessed from its tokens.

A guess that was wrong does no harm: it wrote the keys and values of one token into the block of a sequence that ended
or was preempted, and whoever gets the block writes it again, later in the same order, before reading it. What was
swapped out meanwhile may hold that token too: it lies behind those that count, and is written again.

Where sequences keep states beside the cache, a step changes what it reads: a guess that was wrong has spoilt a state.
As a rule its sequence ended, or begins anew or from a snapshot, and nobody reads that state any more. Should it go on
after all, the step fails, behind which all begin anew or from snapshots. For the same reason no step is computed a
second time. A guessed row takes the snapshot that its sequence has orders for, and what was not asked for takes it in a
slot that is nobody's by then: whoever gets that writes it again, later in the same order, before reading it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import REFUSED, DrawnTokens
from albireo.errors import InvariantError
from albireo.execution.drafts import spread
from albireo.execution.images import has_image_rows, has_rows_at
from albireo.execution.inputs import GroupTables, PackedStep, pack_next, pack_step
from albireo.execution.listening import listen
from albireo.execution.runner import NO_PARTS, DeviceModel, HostTier, Runner, RunnerParts, StateTier, move_blocks
from albireo.image_input import ImageInput
from albireo.params import MAX_TOP
from albireo.step import (
    Floats,
    SampledToken,
    SampleTask,
    SequenceWork,
    StepPlan,
    StepResult,
    TokenLogprobs,
    snapshot_rows,
)

#: Positions beyond the next that blocks are held for, so that the step ahead has a place to write to.
LOOKAHEAD = 1
_NO_SNAPSHOT = (-1, 0)


class AheadDevice(DeviceModel, HostTier, Protocol):
    """A device that computes beside the host, steps in the order of submit(), and draws tokens itself."""

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        """Whether it can draw the tokens of these tasks, of one step."""
        ...

    def submit(
        self,
        inputs: StepInputs,
        tasks: Sequence[SampleTask],
        rows: Sequence[int],
        sources: NDArray[np.int32] | None = None,
        targets: Sequence[tuple[int, int, int]] = (),
        has_drafts: bool = False,
    ) -> Any:
        """Start a step; returns at once.

        Args:
            rows: task i reads row rows[i] of the logits, or of the best logits where no logits are asked for; then
                all tasks take the best one.
            sources: [T] the token of each row: that of so manyth task of the step before; -1: the one in inputs. Given,
                each task has one token that is not among its output yet.
            targets: (row of the logits, token, number of the best): log-probabilities that are wanted of given tokens.
            has_drafts: tasks and rows are those of all tokens of the step, in order. A token that is not the one of
                the row after it, of the same sequence, ends what is drawn of that: those behind it are REFUSED.
        Returns: a ticket for collect(): good until two more steps were begun, and may be left.
        """
        ...

    def record_next(self) -> bool:
        """Record one more of the steps that are likely to come, so that none has to wait for that.

        What submit() began before must have been collected, or be left. Raises nothing: what fails is logged.
        Returns: False: nothing is left, or it failed.
        """
        ...

    def collect(self, ticket: Any) -> DrawnTokens:
        """Wait for a step. What is not sound is computed again by the host's sampler, which says what is wrong."""
        ...


class _Row(NamedTuple):
    """Of a step ahead: where a sequence's row is, which position it computes, where each block group writes that.

    Fields: slot: of its state; -1: none. adapter: see _adapter(). snapshot: what is left behind it, as _snapshot()
        gives it. limit: most tokens of its output, as long as it is known here. takes_best: it is greedy and wants no
        more.
    """

    place: int
    position: int
    blocks: tuple[int, ...]
    slot: int
    adapter: tuple[int, int | None]
    snapshot: tuple[int, int]
    limit: int
    takes_best: bool


@dataclass(frozen=True, slots=True)
class _Ticket:
    """What a device gave for a step, and which it was."""

    device: AheadDevice
    number: Any


@dataclass(frozen=True, slots=True)
class _Flight:
    """A step that was submitted ahead."""

    ticket: _Ticket
    rows: dict[int, _Row]


@dataclass(frozen=True, slots=True)
class _Begun:
    """A step that was submitted, not ahead."""

    plan: StepPlan
    step: PackedStep
    ticket: _Ticket


class AheadRunner:
    """Executes plans as Runner does, to the same bits.

    Steps that have rows of images for a program of their own (seeing) are computed as Runner does, and their tokens are
    drawn by the host; what comes behind them is drawn by the device again.

    Steps in which a row has an adapter are computed, and their tokens drawn, by the program with adapters, in the same
    stream. An adapter is put into its slot in that stream, too: behind the steps in flight, which may read what the
    slot held, and before those that are begun from then on.

    Args: max_positions: longest sequence in tokens. states, num_ahead: see Runner.
    """

    def __init__(
        self,
        device: AheadDevice,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        parts: RunnerParts = NO_PARTS,
        *,
        states: StateTier | None = None,
        num_ahead: int = 0,
    ) -> None:
        self._device, self._adapters, self._num_ahead = device, parts.adapters, num_ahead
        self._images, self._has_seeing, self._listener = parts.images, parts.seeing is not None, parts.listener
        self._states = states
        #: By slot, whose state has a token that was not asked for.
        self._spoilt: dict[int, int] = {}
        self._runner = Runner(device, vocab_size, block_size, parts, states=states, num_ahead=num_ahead)
        self._block_size = block_size
        self._max_positions = max_positions
        self._tables = GroupTables()
        self._flight: _Flight | None = None
        #: Tokens of the step before, by sequence: what the rows in flight were fed.
        self._fed: dict[int, int] = {}
        self.num_found = self.num_computed = 0

    def execute(self, plan: StepPlan) -> StepResult:
        """See Runner.execute()."""
        flight, self._flight = self._flight, None
        found = {} if flight is None else self._found(plan, flight)
        rest = [work for work in plan.work if work.seq_id not in found]
        self.num_found += len(found)
        self.num_computed += len(rest)
        if flight is not None:
            self._note_spoilt(flight, found)
        self._check_states(plan)
        move_blocks(plan, self._device, self._device, self._states)
        if self._listener is not None and self._images is not None:
            rest = listen(plan.part(rest), self._listener, self._images, self._block_size).work
        if plan.adapters and self._adapters is not None:
            self._adapters.fill(plan)
        ahead: _Flight | None = None
        if flight is not None and found and not rest and not plan.waits:
            ahead = self._submit(plan, flight=flight)
        # behind what is in flight, so that the device goes on while the host reads that
        others = self._begin(plan.part(rest)) if found and rest and self._can_draw(rest) else None
        tokens: dict[int, list[SampledToken]] = {}
        if flight is not None and found:
            drawn = _collected(flight.ticket)
            tokens = {seq_id: [_sampled(seq_id, drawn, row.place)] for seq_id, row in found.items()}
            if not drawn.is_sound:
                # Computed again, in the open, it says what is wrong: the same bits go into the same slots.
                self._refuse_again(drawn, [(seq_id, row.place) for seq_id, row in found.items()])
                return self._runner.execute(plan.part(plan.work))
        result = self._compute(plan, rest) if others is None else self._finish(others)
        for token in result.tokens:
            tokens.setdefault(token.seq_id, []).append(token)
        if ahead is None and not plan.waits:
            ahead = self._submit(plan, tokens=tokens)
        self._flight = ahead
        self._fed = {seq_id: some[0].token_id for seq_id, some in tokens.items()}
        in_order = [token for work in plan.work for task in work.samples for token in tokens[task.seq_id]]
        return StepResult(in_order, result.prompt_logprobs, result.pooled)

    def prepare(self) -> bool:
        """See Runner.prepare(). What is in flight is let go: it is nobody's, or computed again."""
        if self._flight is not None:
            self._note_spoilt(self._flight, {})
        self._flight = None
        if self._device.record_next():
            return True
        made = None if self._adapters is None else self._adapters.made
        return made is not None and cast(AheadDevice, made).record_next()

    def _device_of(self, inputs: StepInputs) -> AheadDevice:
        """What computes a step: the program with adapters where a row has one; no other step pays for them.

        Raises: InvariantError where a row has one, and there is no such program.
        """
        if inputs.adapter_slots is None:
            return self._device
        if self._adapters is None:
            raise InvariantError("a sequence has an adapter, and this device computes none")
        return cast(AheadDevice, self._adapters.program())

    def _note_spoilt(self, flight: _Flight, found: dict[int, _Row]) -> None:
        """Rows that nobody asked for have changed states."""
        self._spoilt |= {
            row.slot: seq_id for seq_id, row in flight.rows.items() if seq_id not in found and row.slot >= 0
        }

    def _check_states(self, plan: StepPlan) -> None:
        """Raises: InvariantError when a sequence goes on from a state that was spoilt; none is to blame.

        A slot is sound again once a sequence begins there, or a state is copied or left there.
        """
        if not self._spoilt:
            return
        for _, target in plan.state_copies:
            self._spoilt.pop(target, None)
        for work in plan.work:
            if work.snapshot_rows:
                self._spoilt.pop(work.snapshot_slot, None)
            if not work.num_computed_tokens:
                self._spoilt.pop(work.state_slot, None)
            elif self._spoilt.get(work.state_slot) == work.seq_id:
                raise InvariantError(f"step {plan.step_idx} goes on from a state that a token was guessed for")

    def _refuse_again(self, drawn: DrawnTokens, places: Sequence[tuple[int, int]]) -> None:
        """Of a step that is not sound, and changed states. Args: places: sequences, and where their tokens are."""
        if self._states is not None:
            guilty = [f"sequence {seq_id}" for seq_id, place in places if drawn.tokens[place] == -1]
            raise InvariantError(f"{', '.join(guilty) or 'a sequence'}: its logits are no numbers, or leave no token")

    def _found(self, plan: StepPlan, flight: _Flight) -> dict[int, _Row]:
        """The rows in flight that the plan asks for, of the states that they went on from."""
        found = {}
        copied = {target for _, target in plan.state_copies}
        for work in plan.work:
            row = flight.rows.get(work.seq_id)
            if row is None or len(work.token_ids) != 1 or work.num_computed_tokens != row.position:
                continue
            if work.state_slot != row.slot or row.slot in copied or _snapshot(work, row.position) != row.snapshot:
                continue
            if _adapter(plan, work) != row.adapter:
                continue
            blocks = _blocks_at(work.block_tables, row.position // self._block_size)
            is_same = work.token_ids[0] == self._fed.get(work.seq_id) and blocks == row.blocks
            if is_same and len(work.samples) == 1 and work.prompt_logprobs is None:
                found[work.seq_id] = row
        return found

    def _compute(self, plan: StepPlan, works: list[SequenceWork]) -> StepResult:
        """Those nobody guessed: tokens drawn on the device where it can, others by the host.

        In the plan's order, since a work may read what one before it writes.
        """
        if not works:
            return StepResult([])
        if self._can_draw(works):
            return self._finish(self._begin(plan.part(works)))
        tokens: list[SampledToken] = []
        prompt_logprobs: dict[int, list[TokenLogprobs]] = {}
        pooled: dict[int, Floats] = {}
        for is_there, some in groupby(works, lambda work: self._can_draw([work])):
            part = plan.part(list(some))
            # those who could each be drawn there alone may be too many together
            is_drawn = is_there and self._can_draw(part.work)
            result = self._finish(self._begin(part)) if is_drawn else self._runner.execute(part)
            tokens += result.tokens
            prompt_logprobs |= result.prompt_logprobs
            pooled |= result.pooled
        return StepResult(tokens, prompt_logprobs, pooled)

    def _can_draw(self, works: Sequence[SequenceWork]) -> bool:
        for work in works:
            if work.pooling is not None or not 0 <= (work.prompt_logprobs or 0) <= MAX_TOP:
                return False
            if self._has_seeing and has_image_rows(work):
                return False
        tasks = (task for work in works for task in work.samples for _ in range(1 + work.num_drafts))
        return self._device.can_draw(list(tasks))

    def _begin(self, plan: StepPlan) -> _Begun:
        """Start a step whose tokens the device draws."""
        ahead = self._num_ahead
        step = pack_step(plan, self._block_size, is_top_greedy=True, tables=self._tables, num_ahead=ahead)
        inputs = step.inputs
        if self._images is not None and any(work.images for work in plan.work):
            inputs = self._images.give(inputs, plan.work)
        targets = [
            (first + i, target, work.prompt_logprobs or 0)
            for work, first in step.prompt_rows
            for i, target in enumerate(work.prompt_targets)
        ]
        tasks, rows = (step.tasks, step.task_rows) if not step.drafts else spread(step)
        device = self._device_of(inputs)
        number = device.submit(inputs, tasks, rows, targets=targets, has_drafts=bool(step.drafts))
        return _Begun(plan, step, _Ticket(device, number))

    def _finish(self, begun: _Begun) -> StepResult:
        """Wait for it."""
        step, drawn = begun.step, _collected(begun.ticket)
        if not drawn.is_sound:
            self._refuse_again(drawn, [(task.seq_id, place) for place, task in enumerate(step.tasks)])
            return self._runner.execute(begun.plan)
        told = iter(drawn.targets)
        prompts = {work.seq_id: list(islice(told, len(work.prompt_targets))) for work, _ in step.prompt_rows}
        return StepResult(_all_sampled(step, drawn), prompts)

    def _submit(
        self,
        plan: StepPlan,
        *,
        flight: _Flight | None = None,
        tokens: dict[int, list[SampledToken]] | None = None,
    ) -> _Flight | None:
        """Start the step after this one, of those who surely or likely go on; None when nobody does.

        Args: flight: whose rows find the sequences' tokens; tokens: the tokens themselves. One of them is given. No
            work has drafts: a plan that has some waits.
        """
        rows: dict[int, _Row] = {}
        token_ids: list[int] = []
        sources: list[int] = []
        positions: list[int] = []
        tables: list[tuple[Sequence[int], ...]] = []
        tasks: list[SampleTask] = []
        slots: list[int] = []
        snapshots: list[tuple[int, int]] = []
        images: list[Sequence[ImageInput]] = []
        adapter_slots: list[int] = []
        before = {} if flight is None else flight.rows
        is_top = True
        for work in plan.work:
            samples = work.samples
            if len(samples) != 1:
                continue
            seq_id, task, table = work.seq_id, samples[0], work.block_tables
            position = work.num_computed_tokens + len(work.token_ids)
            column = position // self._block_size
            row = before.get(seq_id)
            limit, takes_best = (row.limit, row.takes_best) if row else _limit(task)
            if len(task.output_token_ids) + 1 >= limit or position >= self._max_positions or column >= len(table[0]):
                continue
            if has_rows_at(work.images, position):  # another program computes it, whose tokens the host draws
                continue
            slot, snapshot = work.state_slot, _snapshot(work, position)
            blocks, adapter = _blocks_at(table, column), _adapter(plan, work)
            rows[seq_id] = _Row(len(tasks), position, blocks, slot, adapter, snapshot, limit, takes_best)
            sources.append(row.place if row else -1)
            token_ids.append(0 if tokens is None else tokens[seq_id][0].token_id)
            positions.append(position)
            tables.append(table)
            tasks.append(task)
            slots.append(slot)
            snapshots.append(snapshot)
            images.append(work.images)
            adapter_slots.append(work.adapter_slot)
            is_top = is_top and takes_best
        if not tasks:
            return None
        rows_of_blocks = self._tables.of(tables, 1 + max(positions) // self._block_size)
        step = pack_next(
            token_ids, positions, rows_of_blocks, tasks, self._block_size, is_top, slots, snapshots, adapter_slots
        )
        turns = None if self._images is None else self._images.next_positions(images, positions)
        heard = None if self._images is None else self._images.next_heard(images)
        inputs = step.inputs if turns is None else replace(step.inputs, rope_positions=turns)
        inputs = inputs if heard is None else replace(inputs, row_ends=heard)
        from_device = np.array(sources, np.int32)
        device = self._device_of(inputs)
        return _Flight(_Ticket(device, device.submit(inputs, step.tasks, step.task_rows, from_device)), rows)


def _collected(ticket: _Ticket) -> DrawnTokens:
    """Wait for a step."""
    return ticket.device.collect(ticket.number)


def _adapter(plan: StepPlan, work: SequenceWork) -> tuple[int, int | None]:
    """The slot that a work runs in, and the adapter that this holds."""
    return work.adapter_slot, plan.adapters[work.adapter_slot] if work.adapter_slot >= 0 else None


def _blocks_at(tables: Sequence[Sequence[int]], column: int) -> tuple[int, ...]:
    return tuple(table[column] for table in tables)


def _snapshot(work: SequenceWork, position: int) -> tuple[int, int]:
    """Slot and rows, 1 or 0, of what a sequence leaves behind its row at a position; in slot -1 where there is none."""
    if work.snapshot_slot < 0:
        return _NO_SNAPSHOT
    rows = snapshot_rows(work.snapshot_slot, work.snapshot_at, position, 1)
    return (work.snapshot_slot, rows) if rows else _NO_SNAPSHOT


def _limit(task: SampleTask) -> tuple[int, bool]:
    """Most tokens of a sequence's output, 0 where the device cannot find the next alone; whether it takes the best."""
    params = task.params
    if params.beam_search is not None:  # who goes on from here, and by which tokens, is found by all beams together
        return 0, False
    if not params.ignores_output or not 0 <= (params.logprobs or 0) <= MAX_TOP:
        return 0, False
    return sys.maxsize if params.max_tokens is None else params.max_tokens, params.is_greedy and params.logprobs is None


def _all_sampled(step: PackedStep, drawn: DrawnTokens) -> list[SampledToken]:
    """The tokens of a step that was spread, without those behind drafts that are wrong."""
    found: list[SampledToken] = []
    place = 0
    for i, task in enumerate(step.tasks):
        end = place + 1 + len(step.drafts.get(i, ()))
        found += [_sampled(task.seq_id, drawn, at) for at in range(place, end) if drawn.tokens[at] != REFUSED]
        place = end
    return found


def _sampled(seq_id: int, drawn: DrawnTokens, index: int) -> SampledToken:
    logprobs = drawn.logprobs[index] if drawn.logprobs else None
    return SampledToken(seq_id, int(drawn.tokens[index]), logprobs)
