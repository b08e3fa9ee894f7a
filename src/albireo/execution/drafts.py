"""Draws the tokens of a step that has drafts: from one row after the other, as long as what is drawn is the draft.

Called by runner.py, and by ahead.py where a device draws. The rows behind a draft that is wrong are of tokens that
never were: no grammar is asked about them, no error of theirs told. A host draws nothing from them. A device draws from
all rows at once, each for a task of its own (spread), and says at which draft that ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

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


def spread(step: PackedStep) -> tuple[list[SampleTask], list[int]]:
    """A task for each row that a token is drawn from, and its row: behind each draft that of a longer output.

    A grammar is asked now what it would allow behind each draft; one that it does not allow comes true never, and what
    is drawn behind it means nothing.
    Cost: a copy of the output a draft.
    """
    tasks: list[SampleTask] = []
    rows: list[int] = []
    for place, (task, row) in enumerate(zip(step.tasks, step.task_rows, strict=True)):
        drafts = step.drafts.get(place, ())
        tasks.append(task)
        tasks.extend(_behind(task, drafts))
        rows.extend(range(row, row + 1 + len(drafts)))
    return tasks, rows


def _behind(task: SampleTask, drafts: Sequence[int]) -> Iterator[SampleTask]:
    matcher = task.matcher
    masks = [] if matcher is None or not drafts else matcher.ahead(task.output_token_ids, drafts)
    for num in range(1, 1 + len(drafts)):
        longer = task.after([*task.output_token_ids, *drafts[:num]])
        if matcher is not None:
            mask = masks[num - 1] if num <= len(masks) else None
            longer = replace(longer, matcher=None if mask is None else _Foreseen(mask, matcher.eos_token_ids))
        yield longer


@dataclass(frozen=True, slots=True)
class _Foreseen:
    """Implements TokenMatcher for one output: what the grammar said of it before."""

    mask: bytes
    eos_token_ids: Sequence[int]

    def allowed(self, output_token_ids: Sequence[int]) -> bytes:
        return self.mask

    def ahead(self, output_token_ids: Sequence[int], draft_token_ids: Sequence[int]) -> list[bytes]:
        return []

    def forced(self, output_token_ids: Sequence[int]) -> Sequence[int]:
        return []
