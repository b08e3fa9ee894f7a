"""What a task changes of single logits, and which tokens it leaves: arrays for kernels/sample_adjust.py.

Asked by task_arrays.py once a step. Penalties count what is in the output: a Changes goes on where it was the step
before, so that a step costs what is new and a copy.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import numpy as np
from numpy.typing import NDArray

from albireo.backends.cuda.kernels.sample_adjust import BANNED, BIASED, COUNT, END, SEEN
from albireo.step import SampleTask

Ids = NDArray[np.int32]


class Changes:
    """Of one task, from step to step. Fields: task: whose they are, of logits of vocab entries.

    An id is there once; what is banned, or ends too early, is behind the others, and another with each token.
    """

    def __init__(self, task: SampleTask, vocab: int) -> None:
        self.task, self._vocab = task, vocab
        params = task.params
        self._repeats = params.repetition_penalty != 1.0
        self._counts = bool(self._repeats or params.frequency_penalty or params.presence_penalty)
        self._per_token = COUNT if params.frequency_penalty or params.presence_penalty else 0
        self._places: dict[int, int] = {}
        self._num_seen = 0
        #: Rows: ids, kinds, the bits of biases.
        self._rows = np.zeros((3, 64), np.int32)
        for token_id, bias in (params.logit_bias or {}).items():
            place = self._place(token_id)
            self._rows[1, place] |= BIASED
            self._rows[2, place] = np.float32(bias).view(np.int32)
        if self._repeats:
            self._take(task.prompt_token_ids, 0)

    def of_longer(self, task: SampleTask) -> Changes:
        """Of the same sequence, whose output goes on. Cost: a copy."""
        self._catch_up()
        other = copy(self)
        other.task, other._places, other._rows = task, self._places.copy(), self._rows.copy()
        return other

    def now(self) -> Ids:
        """[3, n] ids, kinds and biases' bits at this output; a view that the next call overwrites."""
        task = self.task
        self._catch_up()
        num = len(self._places)
        passing: dict[int, int] = dict.fromkeys(task.bad_word_ends, BANNED) if task.params.bad_words_token_ids else {}
        if task.params.min_tokens or task.matcher is not None:
            for token_id in task.early_ends:
                # A model's own EOS ids may lie beyond the rows of its head; such an id cannot be drawn anyway.
                if token_id < self._vocab:
                    passing[token_id] = passing.get(token_id, 0) | END
        if not passing:
            return self._rows[:, :num]
        self._grow(num + len(passing))
        found = self._rows.copy()
        for token_id, kind in passing.items():
            place = self._places.get(token_id)
            if place is None:
                place, num = num, num + 1
                found[:, place] = token_id, 0, 0
            found[1, place] |= kind
        return found[:, :num]

    def _catch_up(self) -> None:
        output = self.task.output_token_ids
        if self._counts:
            self._take(output[self._num_seen :], self._per_token)
            self._num_seen = len(output)

    def _take(self, token_ids: Iterable[int], count: int) -> None:
        for token_id in token_ids:
            place = self._place(token_id)
            self._rows[1, place] = (self._rows[1, place] + count) | (SEEN if self._repeats else 0)

    def _place(self, token_id: int) -> int:
        place = self._places.get(token_id)
        if place is None:
            place = self._places[token_id] = len(self._places)
            self._grow(place + 1)
            self._rows[0, place] = token_id
        return place

    def _grow(self, num: int) -> None:
        if num > self._rows.shape[1]:
            grown = np.zeros((3, max(num, 2 * self._rows.shape[1])), np.int32)
            grown[:, : self._rows.shape[1]] = self._rows
            self._rows = grown


def allowed_words(task: SampleTask, vocab_size: int) -> Ids | None:
    """[ceil(V / 32)] the tokens that the grammar and allowed_token_ids leave, a bit each; None: all.

    Raises: InvalidParams naming the sequence when its grammar gives up.
    """
    grammar, listed = task.token_mask(vocab_size), task.params.allowed_token_ids
    if grammar is None and listed is None:
        return None
    num_bytes = -(-vocab_size // 32) * 4
    mask = np.full(num_bytes, 0xFF, np.uint8)
    if grammar is not None:
        given = np.frombuffer(grammar, np.uint8)[:num_bytes]
        mask[: given.size] = given
    if listed is not None:
        allowed = np.zeros(num_bytes * 8, np.bool_)
        allowed[list(listed)] = True
        mask &= np.packbits(allowed, bitorder="little")
    return mask.view("<i4")
