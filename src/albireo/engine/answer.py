"""Whether a result answers its plan, looked at before anything is committed.

Called by engine.py. Does not know requests.
"""

from __future__ import annotations

from albireo.errors import InvariantError
from albireo.step import StepPlan, StepResult


def check_answer(plan: StepPlan, result: StepResult) -> None:
    """Raises: InvariantError when the result does not answer the plan."""
    asked = [task.seq_id for work in plan.work for task in work.samples]
    given = [token.seq_id for token in result.tokens]
    if asked != given:
        raise InvariantError(f"step {plan.step_idx}: tokens were asked for sequences {asked}, given for {given}")
    for work in plan.work:
        if work.pooling is not None and work.seq_id not in result.pooled:
            raise InvariantError(f"step {plan.step_idx}: sequence {work.seq_id} asked for an embedding and got none")
        if work.prompt_logprobs is not None:
            num_given = len(result.prompt_logprobs.get(work.seq_id, ()))
            if num_given != len(work.prompt_targets):
                raise InvariantError(
                    f"step {plan.step_idx}: sequence {work.seq_id} asked for {len(work.prompt_targets)} "
                    f"prompt log-probabilities and got {num_given}"
                )
