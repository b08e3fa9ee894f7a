"""Executes plans, and notes in the ledger whose they are; when told to be careful, one sequence after the other.

Called by the engine in worker.py. Computing the sequences of a step one by one, in order, gives the same bits: a
sequence may read what one before it wrote in the step, never one behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.engine_process.ledger import Ledger
from albireo.step import StepPlan, StepResult


class NotingExecutor:
    """Attributes:
    is_careful: one sequence at a time.
    owners: sequence id -> key of its request; kept by the worker.
    num_prompt, num_output: tokens of the last plan; see Stepped.
    """

    def __init__(self, execute: Callable[[StepPlan], StepResult], ledger: Ledger) -> None:
        self.is_careful = False
        self.owners: dict[int, int] = {}
        self.num_prompt = self.num_output = 0
        self._execute = execute
        self._ledger = ledger

    def __call__(self, plan: StepPlan) -> StepResult:
        """As the model's execute()."""
        self.num_output = sum(len(work.token_ids) == 1 and bool(work.samples) for work in plan.work)
        self.num_prompt = plan.num_tokens - self.num_output
        try:
            return self._one_by_one(plan) if self.is_careful else self._together(plan)
        finally:
            self._ledger.note(())

    def _together(self, plan: StepPlan) -> StepResult:
        owners = self.owners
        self._ledger.note([owners[work.seq_id] for work in plan.work])
        return self._execute(plan)

    def _one_by_one(self, plan: StepPlan) -> StepResult:
        whole = StepResult([])
        for i, work in enumerate(plan.work):
            self._ledger.note([self.owners[work.seq_id]])
            part = self._execute(plan.part([work], has_moves=i == 0))
            whole.tokens += part.tokens
            whole.prompt_logprobs |= part.prompt_logprobs
            whole.pooled |= part.pooled
        return whole
