"""The steps that programs are compared on: prompts, a chunk, decoding, side by side; full logits and best few.

Called by numerics.py. Small: every weight is widened to float32 once a step. Does not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from albireo.backends.step_inputs import StepInputs
from albireo.execution.inputs import pack_step
from albireo.step import SequenceWork, StepPlan

#: Blocks of the three sequences; block 0 is the null block, and neighbours in a sequence are not in memory.
BLOCKS_EACH = 9
NUM_BLOCKS = 1 + 3 * BLOCKS_EACH
#: The most positions a sequence reaches: 49 of a prompt, one more than a chunk of rows, and two.
_LONGEST = 51


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens start to stop of one sequence."""

    sequence: int
    start: int
    stop: int


def walk_steps(token_ids: Sequence[int], model_len: int, block_size: int) -> list[StepInputs]:
    """Three steps over three sequences: two prompts; a decode beside a chunk and a new prompt; decodes alone.

    Args: token_ids: at least 80 of them. model_len: no sequence gets longer; short ones make small steps.
    """
    long = max(1, min(_LONGEST, model_len) - 2)
    short, chunk, new = (max(1, min(n, long // 3)) for n in (6, 7, 5))
    second = [short, min(short + chunk, long)]
    plans = [
        [_Part(0, 0, long), _Part(1, 0, second[0])],
        [_Part(0, long, long + 1), _Part(1, second[0], second[1]), _Part(2, 0, new)],
        [_Part(0, long + 1, long + 2), _Part(1, second[1], second[1] + 1), _Part(2, new, new + 1)],
    ]
    fits = [[part for part in plan if part.start < part.stop <= model_len] for plan in plans]
    return [_step(i, parts, token_ids, block_size, only_best=i == 2) for i, parts in enumerate(fits) if parts]


def _step(
    index: int, parts: Sequence[_Part], token_ids: Sequence[int], block_size: int, *, only_best: bool
) -> StepInputs:
    work = [
        SequenceWork(
            part.sequence,
            [token_ids[(13 * part.sequence + at) % len(token_ids)] for at in range(part.start, part.stop)],
            part.start,
            (list(range(1 + part.sequence, NUM_BLOCKS, 3)),),
            state_slot=part.sequence,
        )
        for part in parts
    ]
    inputs = pack_step(StepPlan(index, work, sum(len(each.token_ids) for each in work)), block_size)
    last = np.array(inputs.inputs.query_start[1:] - 1, np.int32)
    logit_rows = np.zeros(0, np.int32) if only_best else np.unique(np.append(last, last[0] // 2)).astype(np.int32)
    # the best one of some rows and the best few of others
    counts = np.where(np.arange(len(last)) % 2 == 0, 1, 5).astype(np.int32)
    return replace(inputs.inputs, logit_rows=logit_rows, top_rows=last, top_counts=counts)
