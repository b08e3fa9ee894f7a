"""Adapters in steps that are begun ahead, by plans made by hand: which program computes a row, and when a slot changes
hands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import DrawnTokens
from albireo.errors import InvariantError
from albireo.execution.adapters import AdapterRunner
from albireo.execution.ahead import AheadRunner
from albireo.execution.runner import RunnerParts
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan

#: What was begun, in order: (program, slots of rows, first position), and ("put", slot, adapter).
Log = list[tuple[Any, ...]]


@dataclass
class Table:
    """Draws token 5 behind all."""

    name: str
    log: Log
    num_to_record: int = 0

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        return True

    def submit(self, inputs: StepInputs, tasks: Sequence[SampleTask], *_: Any, **__: Any) -> DrawnTokens:
        slots = None if inputs.adapter_slots is None else inputs.adapter_slots.tolist()
        self.log.append((self.name, slots, int(inputs.positions[0])))
        return DrawnTokens(np.full(len(tasks), 5, np.int32), True, [], [])

    def collect(self, ticket: DrawnTokens) -> DrawnTokens:
        return ticket

    def record_next(self) -> bool:
        self.num_to_record -= 1
        return self.num_to_record >= 0


@dataclass
class Puts:
    """Slots. An adapter is its number here."""

    log: Log

    def put(self, slot: int, adapter: Any) -> None:
        self.log.append(("put", slot, adapter))


def work(seq_id: int, start: int, end: int, slot: int, output: int = 0) -> SequenceWork:
    params = SamplingParams(temperature=0, max_tokens=99, ignore_eos=True)
    task = SampleTask(seq_id, params, 0, [5], [5] * output)
    return SequenceWork(seq_id, [5] * (end - start), start, ([4 + seq_id],), (task,), adapter_slot=slot)


def runner_of(*plans: tuple[Sequence[int | None], Sequence[SequenceWork]]) -> tuple[AheadRunner, Log]:
    """A runner that executed plans of works, and of what their slots hold; and what it began."""
    log: Log = []
    adapters = AdapterRunner(Puts(log), lambda: Table("adapted", log, 1))  # type: ignore[arg-type,return-value]
    for number in (1, 2):
        adapters.add(number, number)  # type: ignore[arg-type]
    runner = AheadRunner(Table("plain", log, 2), 9, 8, 24, RunnerParts(adapters=adapters))  # type: ignore[arg-type]
    for step_idx, (held, works) in enumerate(plans):
        num_tokens = sum(len(each.token_ids) for each in works)
        runner.execute(StepPlan(step_idx, list(works), num_tokens, adapters=held))
    return runner, log


def test_a_step_in_which_a_row_has_one_is_the_other_programs() -> None:
    """Those begun ahead, too; a row of either is found, whoever computed the step before."""
    runner, log = runner_of(
        ((), [work(0, 0, 3, -1)]),
        ((1,), [work(0, 3, 4, -1, 1), work(1, 0, 2, 0)]),
        ((1,), [work(0, 4, 5, -1, 2), work(1, 2, 3, 0, 1)]),
        ((), [work(0, 5, 6, -1, 3)]),
    )
    assert log == [
        ("plain", None, 0),
        ("plain", None, 3),
        ("put", 0, 1),
        ("adapted", [0, 0], 0),
        ("adapted", [-1, 0], 4),
        ("adapted", [-1, 0], 5),
        ("plain", None, 6),
    ]
    assert (runner.num_found, runner.num_computed) == (4, 2)


def test_a_slot_changes_hands_behind_the_step_in_flight_that_reads_it() -> None:
    runner, log = runner_of(((1,), [work(0, 0, 3, 0)]), ((2,), [work(1, 0, 2, 0)]))
    assert log == [
        ("put", 0, 1),
        ("adapted", [0, 0, 0], 0),
        ("adapted", [0], 3),
        ("put", 0, 2),
        ("adapted", [0, 0], 0),
        ("adapted", [0], 2),
    ]
    assert runner.num_found == 0


@pytest.mark.parametrize(("held", "slot"), [((2,), 0), ((2, 1), 1), ((1, 1), -1)], ids=["another", "moved", "none"])
def test_a_row_is_computed_anew_where_its_slot_is_no_longer_what_it_was(held: tuple[int, ...], slot: int) -> None:
    runner, log = runner_of(((1,), [work(0, 0, 3, 0)]), (held, [work(0, 3, 4, slot, 1)]))
    assert (runner.num_found, runner.num_computed) == (0, 2)
    steps = [each for each in log if each[0] != "put"]
    assert [at for _, _, at in steps] == [0, 3, 3, 4]


def test_both_programs_are_recorded_ahead_once_there_are_both() -> None:
    runner, _ = runner_of()
    assert [runner.prepare() for _ in range(3)] == [True, True, False]
    runner, _ = runner_of(((1,), [work(0, 0, 3, 0)]))
    assert [runner.prepare() for _ in range(4)] == [True, True, True, False]


def test_an_adapter_where_there_are_none_is_refused() -> None:
    runner = AheadRunner(Table("plain", []), 9, 8, 24)  # type: ignore[arg-type]
    with pytest.raises(InvariantError, match="this device computes none"):
        runner.execute(StepPlan(0, [work(0, 0, 3, 0)], 3, adapters=(1,)))
