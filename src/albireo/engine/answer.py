"""Whether a result answers its plan, looked at before anything is committed.

Called by engine.py. Does not know requests.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.errors import InvariantError
from albireo.step import SampledToken, SequenceWork, StepPlan, StepResult


def check_answer(plan: StepPlan, result: StepResult) -> None:
    """Raises: InvariantError when the result does not answer the plan."""
    asked = _asked(plan, result)
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


def _num_drawn(work: SequenceWork, tokens: Sequence[SampledToken], first: int) -> int:
    """How many of tokens, from the first of a work on, are the work's."""
    num = len(work.samples)
    for draft in work.draft_token_ids:
        if first + num > len(tokens) or tokens[first + num - 1].token_id != draft:
            break
        num += 1
    return num


def _asked(plan: StepPlan, result: StepResult) -> list[int]:
    """The sequences of the tokens that a result must have: of a work with drafts as many more as came true."""
    if not plan.num_drafts:
        return [task.seq_id for work in plan.work for task in work.samples]
    asked: list[int] = []
    for work in plan.work:
        if work.num_drafts:
            asked += [work.seq_id] * _num_drawn(work, result.tokens, len(asked))
        else:
            asked += [task.seq_id for task in work.samples]
    return asked
