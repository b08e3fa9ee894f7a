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
from albireo.execution.inputs import PackedStep, pack_step, with_logits
from albireo.sampling.sampler import Sampler
from albireo.step import StepPlan, StepResult, TokenLogprobs


class DeviceModel(Protocol):
    """A program on a device, with its KV cache."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...
    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None: ...


class Runner:
    """Executes plans on a device model."""

    def __init__(self, model: DeviceModel, vocab_size: int, block_size: int) -> None:
        self._model = model
        self._sampler = Sampler(vocab_size)
        self._block_size = block_size

    def execute(self, plan: StepPlan) -> StepResult:
        """Copy blocks, compute, sample.

        Raises: InvariantError naming the sequence whose logits are not numbers. Nothing is kept of a failed step but
        KV slots, which the next step that needs them writes again.
        """
        if plan.block_copies:
            self._model.copy_blocks([(source, target) for _, source, target in plan.block_copies])
        if not plan.work:
            return StepResult([])
        step = pack_step(plan, self._block_size)
        outputs = self._model.run(step.inputs)
        if step.is_top:
            found = self._sampler.sample_top(outputs.top_ids, outputs.top_values, step.tasks, step.task_rows)
            if found is not None:
                return StepResult(found)
            # Computing the step again changes nothing: the same bits go into the same slots.
            outputs = self._model.run(with_logits(step.inputs))
        tokens = self._sampler.sample(outputs.logits, step.tasks, step.task_rows)
        return StepResult(tokens, self._prompt_logprobs(step, outputs.logits))

    def _prompt_logprobs(self, step: PackedStep, logits: NDArray[np.float32]) -> dict[int, list[TokenLogprobs]]:
        found = {}
        for work, first in step.prompt_rows:
            rows = logits[first : first + len(work.prompt_targets)]
            try:
                found[work.seq_id] = self._sampler.prompt_logprobs(rows, work.prompt_targets, work.prompt_logprobs or 0)
            except InvariantError as error:
                raise InvariantError(f"sequence {work.seq_id}: {error}") from error
        return found
