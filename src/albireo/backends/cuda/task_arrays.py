"""SampleTasks as arrays of a step: what stays the same from step to step is kept, the rest written anew.

Owned by drawing.py, which gives it the arrays of a step that is being staged. Does not know how they get to a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.backends.cuda.edits import Changes, allowed_words
from albireo.backends.cuda.kernels.sample_adjust import CHANGES, KEEPS_END, MASKED
from albireo.backends.cuda.staging import Arrays, Tail
from albireo.params import SamplingParams
from albireo.step import SampleTask

_MASK64 = (1 << 64) - 1
#: Columns that do not change, and what a task that does not ask for it has there.
_NEUTRAL = {
    "temperature": 0.0,
    "top_p": 1.0,
    "min_p": 0.0,
    "seed": 0,
    "top_k": 0,
    "repetition": 1.0,
    "frequency": 0.0,
    "presence": 0.0,
}


class TaskArrays:
    """Of the tasks of the step at hand. Args: vocab_size: V.

    Fields: changes, truncates: whether a task may change logits before it draws; has top-k or top-p.
    """

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._tasks: tuple[SampleTask, ...] = ()
        self._columns: dict[str, NDArray[Any]] = {}
        #: Of the tasks that change logits: by place in the step.
        self._changing: dict[int, Changes] = {}
        self._choose(())

    def set(self, tasks: Sequence[SampleTask]) -> None:
        """Choose the tasks. Cost: O(tasks) small ones where they are those of the step before."""
        if len(tasks) != len(self._tasks) or not all(map(is_, tasks, self._tasks)):
            self._choose(tasks)

    def _choose(self, tasks: Sequence[SampleTask]) -> None:
        known = {id(changes.task): changes for changes in self._changing.values()}
        self._tasks = tuple(tasks)
        params = [task.params for task in tasks]
        self._columns = {
            "temperature": np.array([0.0 if p.is_greedy else p.temperature for p in params], np.float64),
            "top_p": np.array([p.top_p for p in params], np.float64),
            "min_p": np.array([p.min_p for p in params], np.float64),
            "seed": np.array([task.seed & _MASK64 for task in tasks], np.uint64).view(np.int64),
            "top_k": np.array([p.top_k if p.top_k < self._vocab_size else 0 for p in params], np.int32),
            "repetition": np.array([p.repetition_penalty for p in params], np.float32),
            "frequency": np.array([p.frequency_penalty for p in params], np.float32),
            "presence": np.array([p.presence_penalty for p in params], np.float32),
        }
        self._changing = {}
        for i, task in enumerate(tasks):
            if may_change(task):
                self._changing[i] = known.get(id(task)) or self._changes_of(task, i)
        self.changes = bool(self._changing)
        self.truncates = any(self._truncates(each) for each in params)

    def _changes_of(self, task: SampleTask, place: int) -> Changes:
        """Of a new task, which may be that before it behind one draft more."""
        before = self._changing.get(place - 1)
        if before is not None and before.task.is_before(task):
            return before.of_longer(task)
        return Changes(task, self._vocab_size)

    def write(self, arrays: Arrays, tail: Tail, rows: Sequence[int], ahead: int) -> None:
        """Fill the arrays of the chosen tasks; task i reads row rows[i] of the logits.

        Args: ahead: tokens of each task that are drawn but not among its output yet.
        Raises: InvalidParams naming the sequence whose grammar gives up; InvariantError when there is no room.
        Cost: O(ids changed) a task that changes logits; nothing of V but a mask's V / 8 bytes.
        """
        count = len(self._tasks)
        for name, neutral in _NEUTRAL.items():
            arrays[name][:count], arrays[name][count:] = self._columns[name], neutral
        arrays["position"][:count] = [len(task.output_token_ids) + ahead for task in self._tasks]
        arrays["task_rows"][:count], arrays["task_rows"][count:] = rows, 0
        for name in ("flags", "num_edits"):
            arrays[name][:] = 0
        for i, changes in self._changing.items():
            mask = allowed_words(changes.task, self._vocab_size)
            edits = changes.now()
            flags = CHANGES if mask is not None or edits.size else 0
            flags |= KEEPS_END if changes.task.matcher is not None else 0
            if mask is not None:
                flags |= MASKED
                arrays["mask_start"][i] = tail.put(mask)
            arrays["first_edit"][i], arrays["num_edits"][i] = tail.put(edits), edits.shape[1]
            arrays["flags"][i] = flags

    def _truncates(self, params: SamplingParams) -> bool:
        return not params.is_greedy and (params.top_p < 1.0 or 0 < params.top_k < self._vocab_size)


def may_change(task: SampleTask) -> bool:
    """Whether it may change logits before it draws, now or after more output."""
    return task.params.changes_logits or task.matcher is not None or task.params.min_tokens > 0
