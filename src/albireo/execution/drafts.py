"""Draws the tokens of a step that has drafts: from one row after the other, as long as what is drawn is the draft.

Called by runner.py. The rows behind a draft that is wrong are of tokens that never were: nothing is drawn from them, no
grammar asked, no error of theirs told. So a sampler, a grammar and a budget of thinking are asked exactly what they
would be asked without drafts.
"""

from __future__ import annotations

from collections.abc import Callable

from albireo.execution.inputs import PackedStep
from albireo.step import SampledToken, SampleTask

#: Draws the token of a task from a row.
DrawOne = Callable[[SampleTask, int], SampledToken | None]


def draw_with_drafts(step: PackedStep, draw: DrawOne) -> list[SampledToken] | None:
    """The tokens of all tasks, as StepResult has them. Returns: None as soon as draw() does."""
    tokens = []
    for place, (task, row) in enumerate(zip(step.tasks, step.task_rows, strict=True)):
        drawn = draw(task, row)
        if drawn is None:
            return None
        tokens.append(drawn)
        output = [*task.output_token_ids] if place in step.drafts else []
        for num, draft in enumerate(step.drafts.get(place, ()), 1):
            if drawn.token_id != draft:
                break
            output.append(draft)
            drawn = draw(task.after(output), row + num)
            if drawn is None:
                return None
            tokens.append(drawn)
    return tokens
