"""Draws tokens by the kernels, as a step does: tasks become columns of a step of their own, then the launches run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from albireo.backends.cuda.drawing import tail_words
from albireo.backends.cuda.kernels.sample import sample, sample_workspace
from albireo.backends.cuda.sampling import TASK_COLUMNS, SamplingTensors
from albireo.backends.cuda.staging import Staging
from albireo.backends.cuda.task_arrays import TaskArrays
from albireo.backends.step_inputs import StepInputs
from albireo.step import SampleTask

CPU = torch.device("cpu")


def staged(
    arrays: TaskArrays, tasks: Sequence[SampleTask], rows: Sequence[int], room: int, vocab: int
) -> SamplingTensors:
    """Tasks on the device, in a step of their own."""
    sizes = {"T": 0, "B": 0, "R": 0, "G": 0, "S": 0, "D": room, "L": 0}
    staging = Staging(sizes, 0, 16, CPU, TASK_COLUMNS, tail_words(room, vocab))
    none = np.zeros(0, np.int32)
    nothing = StepInputs(none, none, none, np.zeros(1, np.int32), none, np.zeros((0, 1), np.int32), none, none)
    arrays.set(tasks)
    staging.fill(nothing, sizes, write=lambda columns, tail: arrays.write(columns, tail, rows, ahead=0))
    return SamplingTensors.of(staging.tensors(sizes, TASK_COLUMNS), staging.words)


def drawn(
    logits: np.ndarray, tasks: Sequence[SampleTask], rows: Sequence[int], room: int = 0, does_all: bool = False
) -> list[int]:
    """By the kernels; room: tasks that there is room for. does_all: with every launch, whether a task asks or not."""
    room, vocab = max(room, len(tasks)), logits.shape[1]
    arrays = TaskArrays(vocab)
    tensors = staged(arrays, tasks, rows, room, vocab)
    space = sample_workspace(room, vocab, CPU)
    out = torch.full((room,), -7, dtype=torch.int32)
    changes, truncates = does_all or arrays.changes, does_all or arrays.truncates
    sample(torch.from_numpy(logits), tensors, space, out, changes, truncates)
    assert not space.arrived.any()
    return out[: len(tasks)].tolist()
