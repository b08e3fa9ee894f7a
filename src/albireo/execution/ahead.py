"""AheadRunner: a device gets the next decoding step before this step's tokens are looked at.

Used instead of runner.py alone where a device computes beside the host. While it computes step n + 1, the host reports
step n, plans n + 1 and finds it computed. The engine knows nothing of it: what is submitted ahead is a guess (everyone
who decoded goes on, with the token that the device itself found), and a row is used only where the plan asks for
exactly that row. Since a row's bits do not depend on the rows beside it, others are computed as a step of their own.

A guess that was wrong does no harm: it wrote the keys and values of one token into the block of a sequence that ended
or was preempted, and whoever gets the block writes it again, later in the same order, before reading it. What was
swapped out meanwhile may hold that token too: it lies behind those that count, and is written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs
from albireo.execution.inputs import pack_step
from albireo.execution.runner import DeviceModel, HostTier, Pooler, Runner, move_blocks
from albireo.step import SampledToken, SampleTask, SequenceWork, StepPlan, StepResult, TokenLogprobs

#: Positions beyond the next that blocks are held for, so that the step ahead has a place to write to.
LOOKAHEAD = 1


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
    ) -> Any:
        """Start a step; returns at once.

        Args:
            rows: task i reads row rows[i] of the logits, or of the best logits where no logits are asked for; then
                all tasks take the best one.
            sources: [T] the token of each row: that of so manyth task of the step before; -1: the one in inputs. Given,
                each task has one token that is not among its output yet.
        Returns: a ticket for collect(): good until two more steps were begun, and may be left.
        """
        ...

    def collect(self, ticket: Any) -> NDArray[np.int32]:
        """Wait for a step. Returns: [tasks] the tokens; -1 where the host's sampler is to say what is wrong."""
        ...


@dataclass(frozen=True, slots=True)
class _Row:
    """Of a step ahead: where a sequence's row is, which position it computes, where that is written."""

    index: int
    position: int
    block: int


@dataclass(frozen=True, slots=True)
class _Flight:
    """A step that was submitted ahead."""

    ticket: Any
    rows: dict[int, _Row]


class AheadRunner:
    """Executes plans as Runner does, to the same bits.

    Args: max_positions: longest sequence in tokens.
    """

    def __init__(
        self,
        device: AheadDevice,
        vocab_size: int,
        block_size: int,
        max_positions: int,
        pooler: Pooler | None = None,
    ) -> None:
        self._device = device
        self._runner = Runner(device, vocab_size, block_size, pooler)
        self._block_size = block_size
        self._max_positions = max_positions
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
        move_blocks(plan, self._device, self._device)
        ahead: _Flight | None = None
        if flight is not None and found and not rest:
            ahead = self._submit(plan.work, sources={seq_id: row.index for seq_id, row in found.items()})
        tokens: dict[int, SampledToken] = {}
        if flight is not None and found:
            drawn = self._device.collect(flight.ticket)
            tokens = {seq_id: SampledToken(seq_id, int(drawn[row.index])) for seq_id, row in found.items()}
            if min(token.token_id for token in tokens.values()) < 0:
                # Computed again, in the open, it says what is wrong: the same bits go into the same slots.
                return self._runner.execute(plan.part(plan.work))
        others = self._compute(plan, rest)
        tokens |= {token.seq_id: token for token in others.tokens}
        if ahead is None:
            ahead = self._submit(plan.work, tokens=tokens)
        self._flight = ahead
        self._fed = {seq_id: token.token_id for seq_id, token in tokens.items()}
        in_order = [tokens[task.seq_id] for work in plan.work for task in work.samples]
        return StepResult(in_order, others.prompt_logprobs, others.pooled)

    def _found(self, plan: StepPlan, flight: _Flight) -> dict[int, _Row]:
        """The rows in flight that the plan asks for."""
        found = {}
        for work in plan.work:
            row = flight.rows.get(work.seq_id)
            if row is None or len(work.token_ids) != 1 or work.num_computed_tokens != row.position:
                continue
            block = work.block_tables[0][row.position // self._block_size]
            is_same = work.token_ids[0] == self._fed.get(work.seq_id) and block == row.block
            if is_same and len(work.samples) == 1 and work.prompt_logprobs is None:
                found[work.seq_id] = row
        return found

    def _compute(self, plan: StepPlan, works: list[SequenceWork]) -> StepResult:
        """Those nobody guessed: tokens drawn on the device where it can, others by the host.

        In the plan's order, since a work may read what one before it writes.
        """
        tokens: list[SampledToken] = []
        prompt_logprobs: dict[int, list[TokenLogprobs]] = {}
        pooled: dict[int, list[float]] = {}
        for is_there, some in groupby(works, self._can_draw):
            part = plan.part(list(some))
            result = self._draw(part) if is_there else self._runner.execute(part)
            tokens += result.tokens
            prompt_logprobs |= result.prompt_logprobs
            pooled |= result.pooled
        return StepResult(tokens, prompt_logprobs, pooled)

    def _can_draw(self, work: SequenceWork) -> bool:
        return work.prompt_logprobs is None and work.pooling is None and self._device.can_draw(work.samples)

    def _draw(self, plan: StepPlan) -> StepResult:
        tasks = [task for work in plan.work for task in work.samples]
        if not self._device.can_draw(tasks):  # each alone, but not all together
            return self._runner.execute(plan)
        step = pack_step(plan, self._block_size, is_drawn_there=True)
        drawn = self._device.collect(self._device.submit(step.inputs, step.tasks, step.task_rows))
        if len(drawn) and drawn.min() < 0:
            return self._runner.execute(plan)
        tokens = zip(step.tasks, drawn.tolist(), strict=True)
        return StepResult([SampledToken(task.seq_id, token_id) for task, token_id in tokens])

    def _submit(
        self,
        works: Sequence[SequenceWork],
        *,
        sources: dict[int, int] | None = None,
        tokens: dict[int, SampledToken] | None = None,
    ) -> _Flight | None:
        """Start the step after this one, of those who surely or likely go on; None when nobody does.

        Args: sources: the row in flight that finds a sequence's token; tokens: the token itself. One of them is given.
        """
        next_works: list[SequenceWork] = []
        rows: dict[int, _Row] = {}
        wanted: list[int] = []
        for work in works:
            position = work.num_computed_tokens + len(work.token_ids)
            table = work.block_tables[0]
            if not self._goes_on(work, position) or position // self._block_size >= len(table):
                continue
            seq_id = work.seq_id
            rows[seq_id] = _Row(len(next_works), position, table[position // self._block_size])
            token_id = 0 if tokens is None else tokens[seq_id].token_id
            wanted.append(-1 if sources is None else sources[seq_id])
            next_works.append(SequenceWork(seq_id, [token_id], position, work.block_tables, work.samples))
        if not next_works:
            return None
        step = pack_step(StepPlan(-1, next_works, len(next_works)), self._block_size, is_drawn_there=True)
        from_device = np.array(wanted, np.int32)
        return _Flight(self._device.submit(step.inputs, step.tasks, step.task_rows, from_device), rows)

    def _goes_on(self, work: SequenceWork, position: int) -> bool:
        """Whether a sequence may have a next token that the device can find alone."""
        if len(work.samples) != 1 or position >= self._max_positions:
            return False
        task = work.samples[0]
        params = task.params
        if not params.draws_from_raw:
            return False
        return params.max_tokens is None or len(task.output_token_ids) + 1 < params.max_tokens
