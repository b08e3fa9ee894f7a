"""Drawing: the tokens of a step, drawn on the device and kept there for the step that follows.

Owned by model.py. Tokens are those of the host's sampler (sampling/sampler.py); where a row is damaged, or parameters
leave nothing to draw, the token is -1, and the host's sampler says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from albireo.backends.cuda.kernels.sample import sample
from albireo.backends.cuda.sampling import SampleWorkspace, SamplingStaging
from albireo.step import SampleTask

#: Steps whose parameters may be on their way at once.
_STAGINGS = 3
#: Logits that the parameters of a step may change, one by one; three numbers each in each staging.
MAX_EDITS = 1 << 20


class Drawing:
    """Room for the tasks of the largest step. Args: num_tasks: most tasks of a step. vocab: width of logits.

    Fields: tokens: [num_tasks] what the last step drew, on the device.
    """

    def __init__(self, num_tasks: int, vocab: int, device: torch.device) -> None:
        self._num_tasks = num_tasks
        self._stagings = [SamplingStaging(num_tasks, vocab, MAX_EDITS, device) for _ in range(_STAGINGS)]
        self._sent: list[Any] = [None] * _STAGINGS
        self._turn = 0
        self._space = SampleWorkspace.allocate(num_tasks, vocab, device)
        self._device = device
        self.tokens = torch.full((num_tasks,), -1, dtype=torch.int32, device=device)

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        """Whether there is room for what these tasks change, and neither log-probabilities nor a budget of thinking are
        asked for."""
        if len(tasks) > self._num_tasks:
            return False
        if any(task.params.logprobs is not None or task.budget is not None for task in tasks):
            return False
        return sum(map(_most_edits, tasks)) <= MAX_EDITS

    def from_logits(self, logits: torch.Tensor, tasks: Sequence[SampleTask], rows: Sequence[int], ahead: int) -> None:
        """Draw: task i reads row rows[i]. ahead: tokens of each task that are not among its output yet.

        Raises: InvalidParams naming the sequence whose grammar gives up.
        """
        self._turn = (self._turn + 1) % _STAGINGS
        if self._sent[self._turn] is not None:
            self._sent[self._turn].synchronize()
        tensors = self._stagings[self._turn].fill(tasks, rows, ahead)
        if self._device.type == "cuda":
            self._sent[self._turn] = torch.cuda.Event()
            self._sent[self._turn].record()
        sample(logits, tensors, replace(self._space, num_tasks=len(tasks)), self.tokens[: len(tasks)])

    def from_best(self, ids: torch.Tensor, values: torch.Tensor, rows: Sequence[int]) -> None:
        """The best id of each row, for tasks that take no other. ids, values: [G, n]."""
        found = torch.where(torch.isfinite(values[:, 0]), ids[:, 0], -1)
        if len(rows) != len(found) or any(row != i for i, row in enumerate(rows)):
            found = found[torch.tensor(list(rows), dtype=torch.int64).to(self._device)]
        self.tokens[: len(found)].copy_(found)


def _most_edits(task: SampleTask) -> int:
    params = task.params
    count = len(params.logit_bias or ()) + len(params.bad_words_token_ids or ()) + len(task.stop_token_ids)
    if params.repetition_penalty != 1.0:
        count += len(task.prompt_token_ids)
    if params.repetition_penalty != 1.0 or params.frequency_penalty or params.presence_penalty:
        count += len(task.output_token_ids)
    return count
