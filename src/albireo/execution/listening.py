"""What a step does with sounds: their positions are computed by a program of their own, which writes what a decoder's
layers listen to, and no other row knows of it.

Called by runner.py. Does not know models: it is given the program.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import StepOutputs
from albireo.execution.images import ImageRows
from albireo.execution.inputs import pack_step
from albireo.step import SequenceWork, StepPlan


class Listener(Protocol):
    """A program of given rows that leaves keys and values in the KV cache of a model; the two run in turn."""

    def run(self, inputs: StepInputs) -> StepOutputs: ...


def listen(plan: StepPlan, listener: Listener, sounds: ImageRows, block_size: int) -> StepPlan:
    """Compute the positions of a step that are sounds'.

    Returns: what is left of the step, whose other tokens find all of their sound in the cache.
    """
    heard, left = [], []
    for work in plan.work:
        sound, text = _parted(work)
        heard += [] if sound is None else [sound]
        left += [] if text is None else [text]
    if not heard:
        return plan
    part = plan.part(heard)
    given = sounds.give(pack_step(part, block_size).inputs, heard)
    # all tokens are given, in order, and see nothing
    listener.run(replace(given, given_rows=None, row_ends=None))
    return plan.part(left)


def _parted(work: SequenceWork) -> tuple[SequenceWork | None, SequenceWork | None]:
    """The tokens of a work that stand for a sound, with which its sequence begins; and those behind it."""
    end = max((last for image in work.images for _, last in image.spans), default=0)
    count = min(len(work.token_ids), max(0, end - work.num_computed_tokens))
    if count == 0:
        return None, work
    sound = replace(work, token_ids=work.token_ids[:count], samples=(), prompt_logprobs=None, prompt_targets=())
    if count == len(work.token_ids):
        return sound, None
    # no log-probabilities of the prompt are wanted where there is a sound
    return sound, replace(work, token_ids=work.token_ids[count:], num_computed_tokens=work.num_computed_tokens + count)
