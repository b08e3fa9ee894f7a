"""Executes plans, and notes in the ledger whose they are; when told to be careful, one sequence after the other.

Called by the engine in worker.py. Computing the sequences of a step one by one, in order, gives the same bits: a
sequence may read what one before it wrote in the step, never one behind it.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.engine_process.ledger import Ledger
from albireo.errors import DeviceLost, RankLost
from albireo.step import StepPlan, StepResult


class NotingExecutor:
    """Attributes:
    is_careful: one sequence at a time.
    owners: sequence id -> key of its request; kept by the worker.
    num_prompt, num_output: tokens of the last step; see Stepped.
    """

    def __init__(self, execute: Callable[[StepPlan], StepResult], ledger: Ledger) -> None:
        self.is_careful = False
        self.owners: dict[int, int] = {}
        self.num_prompt = self.num_output = 0
        self._execute = execute
        self._ledger = ledger

    def __call__(self, plan: StepPlan) -> StepResult:
        """As the model's execute(). Where the process ends of it, the ledger says in whose step: the GPU is lost, or
        native code has panicked, which is no Exception."""
        num_next = sum(len(work.token_ids) == 1 + work.num_drafts and bool(work.samples) for work in plan.work)
        self.num_output = num_next
        self.num_prompt = plan.num_tokens - plan.num_drafts - num_next
        try:
            result = self._one_by_one(plan) if self.is_careful else self._together(plan)
        except RankLost:
            self._ledger.note(())
            raise
        except DeviceLost:
            raise
        except Exception:
            self._ledger.note(())
            raise
        self._ledger.note(())
        if plan.num_drafts:
            self.num_output += len(result.tokens) - sum(len(work.samples) for work in plan.work)
        return result

    def _together(self, plan: StepPlan) -> StepResult:
        owners = self.owners
        self._ledger.note([owners[work.seq_id] for work in plan.work])
        return self._execute(plan)

    def _one_by_one(self, plan: StepPlan) -> StepResult:
        whole = StepResult([])
        for i, work in enumerate(plan.work):
            self._ledger.note([self.owners[work.seq_id]])
            alone = plan.part([work], has_moves=i == 0)
            # A device that went ahead would guess a token of this sequence, and the next one is another's: where
            # sequences keep states, this one's would be spoilt.
            alone.waits = True
            part = self._execute(alone)
            whole.tokens += part.tokens
            whole.prompt_logprobs |= part.prompt_logprobs
            whole.pooled |= part.pooled
        return whole
