"""Drawing: the tokens of a step, drawn on the device and kept there for the step that follows.

Owned by endings.py. Tokens are those of the host's sampler (sampling/sampler.py); where a row is damaged, or parameters
leave nothing to draw, the token is -1, and the host's sampler says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from albireo.backends.cuda.buckets import Ending
from albireo.backends.cuda.kernels.sample import sample, sample_workspace
from albireo.backends.cuda.kernels.take_best import take_best
from albireo.backends.cuda.sampling import SamplingTensors
from albireo.backends.cuda.task_arrays import TaskArrays, may_change
from albireo.params import MAX_TOP
from albireo.speculative_config import MAX_DRAFTS
from albireo.step import SampleTask

#: Logits that the parameters of a step may change, one by one; three words each in each staging.
MAX_EDITS = 1 << 20


def tail_words(num_tasks: int, vocab: int) -> int:
    """Words of staging that masks and changes of single logits take at most."""
    return num_tasks * -(-vocab // 32) + 3 * MAX_EDITS


class Drawing:
    """Room for the tasks of the largest step. Args: num_tasks: most tasks of a step. vocab: width of logits.

    Fields: tokens: [num_tasks] what the last step drew, on the device. arrays: the tasks of the step at hand.
    """

    def __init__(self, num_tasks: int, vocab: int, device: torch.device) -> None:
        self._num_tasks = num_tasks
        self._space = sample_workspace(num_tasks, vocab, device)
        self.arrays = TaskArrays(vocab)
        self.tokens = torch.full((num_tasks,), -1, dtype=torch.int32, device=device)

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        """Whether there is room for what these tasks change and want to be told.

        None has a budget of thinking, or rules of speech, which ask how likely all times are together, or names tokens
        that it is to be told of, or penalties of the last tokens alone.
        """
        if len(tasks) > self._num_tasks or any(_is_for_the_host(task) for task in tasks):
            return False
        num_edits = 0
        for task in tasks:
            if not 0 <= (task.params.logprobs or 0) <= MAX_TOP:
                return False
            if may_change(task):
                num_edits += _most_edits(task)
        return num_edits <= MAX_EDITS

    def from_logits(self, logits: torch.Tensor, tasks: SamplingTensors, ending: Ending) -> None:
        """Draw, as many as tasks has rows."""
        count = len(tasks.rows)
        space = replace(self._space, num_tasks=count)
        sample(logits, tasks, space, self.tokens[:count], changes=ending.changes, truncates=ending.truncates)

    def from_best(self, ids: torch.Tensor, values: torch.Tensor, rows: torch.Tensor) -> None:
        """The best id of each row, for tasks that take no other. ids, values: [G, n]."""
        take_best(ids, values, rows, self.tokens[: len(rows)])


def _is_for_the_host(task: SampleTask) -> bool:
    params = task.params
    has_window = params.penalty_window is not None and not params.ignores_output
    return task.budget is not None or params.speech_rules is not None or bool(params.logprob_token_ids) or has_window


def _most_edits(task: SampleTask) -> int:
    """Also behind drafts."""
    params = task.params
    count = len(task.stop_token_ids) + len(params.bad_words_token_ids)
    if params.logit_bias:
        count += len(params.logit_bias)
    num_output = len(task.output_token_ids) + MAX_DRAFTS
    if params.repetition_penalty != 1.0:
        count += len(task.prompt_token_ids) + num_output
    elif params.frequency_penalty or params.presence_penalty:
        count += num_output
    return count
