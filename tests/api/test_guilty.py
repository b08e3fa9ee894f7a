"""Whose work a step fails with, when its error names nobody: whoever it is, and nobody else."""

from __future__ import annotations

import pytest

from albireo.api.guarded_engine import _first_guilty
from albireo.errors import DeviceLost
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan, StepResult


def plan(num: int) -> StepPlan:
    """One token of each of so many sequences."""
    tasks = [SampleTask(i, SamplingParams(temperature=0), 0, [1], []) for i in range(num)]
    return StepPlan(0, [SequenceWork(i, [5], 1, ([i],), (task,)) for i, task in enumerate(tasks)], num)


@pytest.mark.parametrize(("num", "guilty"), [(num, guilty) for num in range(1, 8) for guilty in range(num)])
def test_the_first_with_which_a_step_fails_is_found(num: int, guilty: int) -> None:
    asked: list[int] = []

    def execute(part: StepPlan) -> StepResult:
        asked.append(len(part.work))
        if any(work.seq_id == guilty for work in part.work):
            raise ValueError("no")
        return StepResult([])

    assert _first_guilty(plan(num), execute) == [guilty]
    assert len(asked) <= (num - 1).bit_length()


def test_without_work_it_is_nobody_and_a_lost_device_is_nobody_s_doing() -> None:
    def lost(part: StepPlan) -> StepResult:
        raise DeviceLost("gone")

    assert _first_guilty(plan(0), lost) == []
    with pytest.raises(DeviceLost):
        _first_guilty(plan(2), lost)
