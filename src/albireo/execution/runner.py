"""Runner: makes one planned step happen on one device: plan -> arrays -> program -> tokens.

Its execute() is what the engine is given. Does not decide anything: who runs, and for how long, is in the plan.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.errors import InvariantError
from albireo.execution.inputs import PackedStep, TableRows, pack_step, with_hidden, with_logits
from albireo.execution.pooling import pool
from albireo.sampling.sampler import Sampler
from albireo.step import StepPlan, StepResult, TokenLogprobs


class DeviceModel(Protocol):
    """A program on a device, with its KV cache."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...
    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None: ...


class Pooler(Protocol):
    """A program that gives hidden states in place of logits, on the KV cache of a DeviceModel; they run in turn."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...


class Runner:
    """Executes plans on a device model."""

    def __init__(self, model: DeviceModel, vocab_size: int, block_size: int, pooler: Pooler | None = None) -> None:
        """Args: pooler: None where no plan holds a PoolingTask."""
        self._model = model
        self._pooler = pooler
        self._sampler = Sampler(vocab_size)
        self._block_size = block_size
        self._tables = TableRows()

    def execute(self, plan: StepPlan) -> StepResult:
        """Copy blocks, compute, sample.

        Raises: InvariantError naming the sequence whose logits are not numbers. Nothing is kept of a failed step but
        KV slots, which the next step that needs them writes again.
        """
        if plan.block_copies:
            self._model.copy_blocks([(source, target) for _, source, target in plan.block_copies])
        if not plan.work:
            return StepResult([])
        if self._pooler is not None and any(work.pooling for work in plan.work):
            return self._pool(plan, self._pooler)
        return self._sample(self._pack(plan))

    def _pack(self, plan: StepPlan) -> PackedStep:
        return pack_step(plan, self._block_size, tables=self._tables)

    def _sample(self, step: PackedStep) -> StepResult:
        outputs = self._model.run(step.inputs)
        if step.is_top:
            found = self._sampler.sample_top(outputs.top_ids, outputs.top_values, step.tasks, step.task_rows)
            if found is not None:
                return StepResult(found)
            # Computing the step again changes nothing: the same bits go into the same slots.
            outputs = self._model.run(with_logits(step.inputs))
        tokens = self._sampler.sample(outputs.logits, step.tasks, step.task_rows)
        return StepResult(tokens, self._prompt_logprobs(step, outputs.logits))

    def _pool(self, plan: StepPlan, pooler: Pooler) -> StepResult:
        """The other program computes the step; of what is to be sampled it knows the best few logits.

        Where that is not enough, those that are sampled from are computed again with logits: the same bits go into
        the same slots.
        """
        step = self._pack(plan)
        outputs = pooler.run(with_hidden(step.inputs, plan.work))
        pooled, first = {}, 0
        for work in plan.work:
            if work.pooling is not None:
                end = first + work.pooling.num_rows
                try:
                    pooled[work.seq_id] = pool(work.pooling, outputs.hidden[first:end])
                except InvariantError as error:
                    raise InvariantError(f"sequence {work.seq_id}: {error}") from error
                first = end
        if step.is_top:
            found = self._sampler.sample_top(outputs.top_ids, outputs.top_values, step.tasks, step.task_rows)
            if found is not None:
                return StepResult(found, pooled=pooled)
        rest = [work for work in plan.work if work.pooling is None]
        sampled = StepPlan(plan.step_idx, rest, sum(len(work.token_ids) for work in rest))
        result = self._sample(self._pack(sampled))
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
