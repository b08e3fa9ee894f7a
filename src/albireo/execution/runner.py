"""Runner: makes one planned step happen on one device: plan -> arrays -> program -> tokens.

Its execute() is what the engine is given. Does not decide anything: who runs, and for how long, is in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.backends.cpu.machine import ThreadPool
from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.errors import InvariantError, OutOfMemory
from albireo.execution.adapters import AdapterRunner
from albireo.execution.draft_head import HiddenStates
from albireo.execution.drafts import draw_with_drafts
from albireo.execution.images import ImageRows
from albireo.execution.inputs import GroupTables, PackedStep, pack_step, with_hidden, with_logits
from albireo.execution.listening import Listener, listen
from albireo.execution.pooling import Ending, Scaled, pool
from albireo.execution.writing import Writer
from albireo.sampling.sampler import Sampler
from albireo.step import SampledToken, SampleTask, StepPlan, StepResult, TokenLogprobs


class DeviceModel(Protocol):
    """A program on a device, with its KV cache."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...
    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None: ...


class HostTier(Protocol):
    """Blocks in host memory, beside the KV cache of a device that has memory of its own."""

    def swap_out(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks of the cache, first of a pair, to blocks of host memory, behind what is under way."""
        ...

    def swap_in(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy blocks of host memory, first of a pair, to blocks of the cache, before what comes next."""
        ...


class StateTier(Protocol):
    """What sequences keep beside the KV cache, in a slot each."""

    def copy_states(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy whole slots (source, target), in order."""
        ...


class BlockContents(Protocol):
    """Blocks of a KV cache, and slots of states, that whoever is between two steps may read and write."""

    def block_content(self, block: int) -> list[memoryview]:
        """All bytes of a block, in parts."""
        ...

    def state_content(self, slot: int) -> list[memoryview]:
        """All bytes of a slot, in parts; none where layers keep no states."""
        ...


class Pooler(Protocol):
    """A program that gives hidden states in place of logits, on the KV cache of a DeviceModel; they run in turn."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...


def move_blocks(
    plan: StepPlan,
    model: DeviceModel,
    host: HostTier | None,
    states: StateTier | None = None,
    contents: BlockContents | None = None,
) -> None:
    """What a plan has moved before anything is computed, in the order that StepPlan names.

    Raises: InvariantError when it swaps and there is no host memory for it, copies what nobody keeps, or fills blocks
        that cannot be written from outside.
    """
    if plan.state_copies:
        if states is None:
            raise InvariantError(f"step {plan.step_idx} copies states of sequences, and this device keeps none")
        states.copy_states(plan.state_copies)
    if (plan.swap_outs or plan.swap_ins) and host is None:
        raise InvariantError(f"step {plan.step_idx} swaps blocks, and this device keeps none in host memory")
    if plan.swap_outs and host is not None:
        host.swap_out(plan.swap_outs)
    if plan.block_copies:
        model.copy_blocks(plan.block_copies)
    if plan.swap_ins and host is not None:
        host.swap_in(plan.swap_ins)
    if plan.fills or plan.state_fills:
        if contents is None:
            raise InvariantError(f"step {plan.step_idx} fills blocks, and nobody writes this device's from outside")
        for block, content in plan.fills:
            _fill(contents.block_content(block), content)
        for slot, content in plan.state_fills:
            _fill(contents.state_content(slot), content)


def _fill(parts: list[memoryview], content: bytes) -> None:
    first = 0
    for part in parts:
        part[:] = content[first : first + len(part)]
        first += len(part)


def _not_finite(step: PackedStep, outputs: StepOutputs) -> InvariantError:
    """Of a step whose best logits do not decide, and all of whose tasks take the best one."""
    for task, row in zip(step.tasks, step.task_rows, strict=True):
        if not np.isfinite(best := outputs.top_values[row, 0]):
            return InvariantError(f"sequence {task.seq_id}: its best logit is {best}, which is no finite number")
    return InvariantError("the best logits of a step are finite, and do not decide")


@dataclass(frozen=True, slots=True)
class RunnerParts:
    """What some steps need beside the model; None where no plan has such.

    Fields:
        pooler: of those that hold a PoolingTask. ending: what is made of pooled hidden states; None: an embedding of
            length 1.
        adapters: of sequences that have one; then the pooler's program knows adapters, too.
        images: of prompts that have some. seeing: the program of steps that have rows of some; None: the model's.
        seeing_pooler: likewise in place of pooler; None: it is that.
        listener: of positions that are sounds'; None: images are pictures. writer: of all that is written; None: it is
            sampled.
    """

    pooler: Pooler | None = None
    ending: Ending | None = None
    adapters: AdapterRunner | None = None
    images: ImageRows | None = None
    seeing: Pooler | None = None
    seeing_pooler: Pooler | None = None
    listener: Listener | None = None
    writer: Writer | None = None


#: Every plan's steps need the model alone.
NO_PARTS = RunnerParts()


class Runner:
    """Executes plans on a device model."""

    def __init__(
        self,
        model: DeviceModel,
        vocab_size: int,
        block_size: int,
        parts: RunnerParts = NO_PARTS,
        *,
        host: HostTier | None = None,
        states: StateTier | None = None,
        hidden_states: HiddenStates | None = None,
        num_ahead: int = 0,
        contents: BlockContents | None = None,
        threads: ThreadPool | None = None,
    ) -> None:
        """Args:
        host: None where no plan swaps.
        states: None where sequences keep nothing beside the KV cache. Else a step changes what it reads, and is never
            computed twice.
        hidden_states: where those of every step go, for a head that drafts; None: there is no such head.
        num_ahead: see pack_step(). contents: of KV blocks; None where no plan fills any.
        threads: among which rows that are sampled are shared out; None: the calling one has all.
        """
        self._model = model
        self._host = host
        self._pooler, self._adapters = parts.pooler, parts.adapters
        self._states = states
        self._ending = Scaled() if parts.ending is None else parts.ending
        self._images, self._seeing, self._listener = parts.images, parts.seeing, parts.listener
        self._seeing_pooler = parts.seeing_pooler
        self._writer = parts.writer
        self._hidden_states, self._num_ahead = hidden_states, num_ahead
        self._contents = contents
        self._sampler = Sampler(vocab_size, threads)
        self._block_size = block_size
        self._tables = GroupTables()

    def execute(self, plan: StepPlan) -> StepResult:
        """Move blocks, compute, sample.

        Raises: InvariantError naming the sequence whose logits are not numbers. Nothing is kept of a failed step but
        KV slots, which the next step that needs them writes again, and states of sequences, which begin anew.
        """
        move_blocks(plan, self._model, self._host, self._states, self._contents)
        if self._hidden_states is not None:
            self._hidden_states.copy_blocks(plan.block_copies)
        if self._writer is not None:
            return self._writer.execute(plan)
        if self._listener is not None and self._images is not None:
            plan = listen(plan, self._listener, self._images, self._block_size)
        if not plan.work:
            return StepResult([])
        if plan.adapters and self._adapters is not None:
            self._adapters.fill(plan)
        if self._pooler is not None and any(work.pooling for work in plan.work):
            return self._pool(plan, self._pooler)
        return self._sample(self._pack(plan))

    def prepare(self) -> bool:
        """Something that later steps would wait for, while there are none: a bounded piece of it; never fails.

        Returns: whether it did any; here there is nothing to do.
        """
        return False

    def _pack(self, plan: StepPlan) -> PackedStep:
        is_once, ahead = self._states is not None, self._num_ahead
        step = pack_step(plan, self._block_size, is_top_greedy=is_once, tables=self._tables, num_ahead=ahead)
        if self._images is None or not any(work.images for work in plan.work):
            return step
        return replace(step, inputs=self._images.give(step.inputs, plan.work))

    def _run(self, inputs: StepInputs) -> StepOutputs:
        """By the program with adapters where a row has one, or that for rows of images: no other step pays for them."""
        if inputs.given_rows is not None and self._seeing is not None:
            return self._run_by(self._seeing, inputs)
        if inputs.adapter_slots is None:
            return self._run_by(self._model, inputs)
        if self._adapters is None:
            raise InvariantError("a sequence has an adapter, and this device computes none")
        return self._run_by(self._adapters.program(), inputs)

    def _run_by(self, program: Pooler | DeviceModel, inputs: StepInputs) -> StepOutputs:
        outputs = program.run(inputs)
        if self._hidden_states is not None:
            self._hidden_states.take(inputs, outputs)
        return outputs

    def _sample(self, step: PackedStep) -> StepResult:
        outputs = self._run(step.inputs)
        if step.is_top:
            found = self._sample_top(step, outputs)
            if found is not None:
                return StepResult(found)
            if self._states is not None:
                raise _not_finite(step, outputs)
            # Computing the step again changes nothing: the same bits go into the same slots.
            outputs = self._run(with_logits(step.inputs))
        tokens = self._sample_logits(step, outputs.logits)
        return StepResult(tokens, self._prompt_logprobs(step, outputs.logits))

    def _sample_top(self, step: PackedStep, outputs: StepOutputs) -> list[SampledToken] | None:
        ids, values, sampler = outputs.top_ids, outputs.top_values, self._sampler
        if not step.drafts:
            return sampler.sample_top(ids, values, step.tasks, step.task_rows)

        def draw(task: SampleTask, row: int) -> SampledToken | None:
            found = sampler.sample_top(ids, values, [task], [row])
            return None if found is None else found[0]

        return draw_with_drafts(step, draw)

    def _sample_logits(self, step: PackedStep, logits: NDArray[np.float32]) -> list[SampledToken]:
        sampler = self._sampler
        if not step.drafts:
            return sampler.sample(logits, step.tasks, step.task_rows)
        tokens = draw_with_drafts(step, lambda task, row: sampler.sample(logits, [task], [row])[0])
        assert tokens is not None, "logits decide"
        return tokens

    def _pool(self, plan: StepPlan, pooler: Pooler) -> StepResult:
        """The other program computes the step; of what is to be sampled it knows the best few logits.

        Where that is not enough, those that are sampled from are computed again with logits: the same bits go into
        the same slots. Where sequences keep states, each is computed by one of the two programs alone.
        """
        others = plan.part([work for work in plan.work if work.pooling is None])
        if self._states is not None:
            plan = plan.part([work for work in plan.work if work.pooling is not None])
        step = self._pack(plan)
        if step.inputs.given_rows is not None and self._seeing_pooler is not None:
            pooler = self._seeing_pooler
        try:
            outputs = self._run_by(pooler, with_hidden(step.inputs, plan.work))
        except OutOfMemory as error:
            # It has memory of its own, had when it is first asked for: those that ask do without.
            asking = ", ".join(f"sequence {work.seq_id}" for work in plan.work if work.pooling)
            raise OutOfMemory(f"an embedding for {asking}: {error}") from error
        pooled, first = {}, 0
        for work in plan.work:
            if work.pooling is not None:
                end = first + work.pooling.num_rows
                try:
                    given = None if self._images is None else self._images.embedding(work)
                    hidden = outputs.hidden[first:end] if given is None else given
                    pooled[work.seq_id] = pool(work.pooling, hidden, self._ending)
                except InvariantError as error:
                    raise InvariantError(f"sequence {work.seq_id}: {error}") from error
                first = end
        if step.is_top and self._states is None:
            found = self._sample_top(step, outputs)
            if found is not None:
                return StepResult(found, pooled=pooled)
        result = self._sample(self._pack(others)) if others.work or self._states is None else StepResult([])
        result.pooled = pooled
        return result

    def _prompt_logprobs(self, step: PackedStep, logits: NDArray[np.float32]) -> dict[int, list[TokenLogprobs]]:
        found = {}
        for work, first in step.prompt_rows:
            rows = logits[first : first + len(work.prompt_targets)]
            try:
                found[work.seq_id] = self._sampler.prompt_logprobs(rows, work.prompt_targets, work.prompt_logprobs or 0)
            except InvariantError as error:
                raise InvariantError(f"sequence {work.seq_id}: {error}") from error
        return found
