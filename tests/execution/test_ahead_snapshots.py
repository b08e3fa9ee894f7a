"""Snapshots in steps that are begun ahead, by plans made by hand: a row stands for one that leaves the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import DrawnTokens
from albireo.engine_process import ledger
from albireo.engine_process.executor import NotingExecutor
from albireo.errors import InvariantError
from albireo.execution.ahead import AheadRunner
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan

#: Of the sequence, and of what it leaves behind its first eight tokens.
SEQ_ID, SLOT, OTHER = 7, 1, 3


@dataclass
class Table:
    """Draws token 5 behind all; steps and copies of states are noted in the order that they are begun in."""

    steps: list[StepInputs] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    num_collected: int = 0

    def can_draw(self, tasks: Sequence[SampleTask]) -> bool:
        return True

    def submit(self, inputs: StepInputs, tasks: Sequence[SampleTask], *_: Any, **__: Any) -> DrawnTokens:
        self.steps.append(inputs)
        return DrawnTokens(np.full(len(tasks), 5, np.int32), True, [], [])

    def collect(self, ticket: DrawnTokens) -> DrawnTokens:
        self.num_collected += 1
        return ticket

    def copy_states(self, pairs: Sequence[tuple[int, int]]) -> None:
        self.copies += pairs


def work(start: int, end: int, slot: int = OTHER, at: int = 8, output: int = 0) -> SequenceWork:
    """Tokens start to end of the sequence, so many of its output out, with an order for a snapshot."""
    task = SampleTask(SEQ_ID, SamplingParams(temperature=0, max_tokens=99, ignore_eos=True), 0, [5], [5] * output)
    tokens, tables = [5] * (end - start), ([4, 2, 6],)
    return SequenceWork(SEQ_ID, tokens, start, tables, (task,), state_slot=SLOT, snapshot_slot=slot, snapshot_at=at)


def plan(step_idx: int, given: SequenceWork, copies: Sequence[tuple[int, int]] = ()) -> StepPlan:
    return StepPlan(step_idx, [given], len(given.token_ids), state_copies=list(copies))


def after(device: Table, *works: SequenceWork) -> AheadRunner:
    """A runner that executed plans of these, and began the step behind them."""
    runner = AheadRunner(device, 9, 8, 24, states=device)  # type: ignore[arg-type]
    for step_idx, given in enumerate(works):
        runner.execute(plan(step_idx, given))
    return runner


def snapshots(inputs: StepInputs) -> tuple[list[int], list[int]] | None:
    if inputs.snapshot_slots is None or inputs.snapshot_rows is None:
        return None
    return inputs.snapshot_slots.tolist(), inputs.snapshot_rows.tolist()


def test_a_guessed_row_takes_the_snapshot_that_is_ordered() -> None:
    """Its sequence gets there by it, and by no step before or behind."""
    device = Table()
    runner = after(device, work(0, 6), work(6, 7, output=1), work(7, 8, output=2), work(8, 9, -1, output=3))
    assert [snapshots(inputs) for inputs in device.steps] == [None, None, ([OTHER], [1]), None, None]
    assert (runner.num_found, runner.num_computed) == (3, 1)


@pytest.mark.parametrize(
    ("begun", "asked_for"),
    [((OTHER, 8), (2, 8)), ((OTHER, 8), (OTHER, 16)), ((OTHER, 8), (-1, 0)), ((-1, 0), (OTHER, 8))],
    ids=["elsewhere", "later", "none", "one"],
)
def test_a_row_with_another_snapshot_is_not_taken(begun: tuple[int, int], asked_for: tuple[int, int]) -> None:
    """Its sequence would go on from what it changed: the step fails."""
    runner = after(Table(), work(0, 7, *begun))
    with pytest.raises(InvariantError, match="goes on from a state that a token was guessed for"):
        runner.execute(plan(1, work(7, 8, *asked_for, output=1)))
    assert runner.num_found == 0


def test_a_row_that_leaves_none_is_found_whatever_is_ordered_for_later() -> None:
    runner = after(Table(), work(0, 5), work(5, 6, 2, 16, output=1), work(6, 7, -1, 0, output=2))
    assert (runner.num_found, runner.num_computed) == (2, 1)


@pytest.mark.parametrize("how", ["copied", "left", "begun"])
def test_a_slot_is_sound_again_once_a_state_is_there(how: str) -> None:
    """Its sequence stopped, a token guessed behind its end, and goes on from a snapshot, in the slot that it had; or it
    begins anew."""
    device = Table()
    runner = after(device, work(0, 9))
    others = replace(work(0, 8), seq_id=8, samples=(), state_slot=0, snapshot_slot=SLOT if how == "left" else 2)
    runner.execute(plan(1, others))
    if how == "begun":
        runner.execute(plan(1, replace(work(0, 8), samples=())))
    again = plan(2, work(8, 9, -1), [(2, SLOT)] if how == "copied" else [])
    (token,) = runner.execute(again).tokens
    assert (token.seq_id, device.copies) == (SEQ_ID, again.state_copies)
    assert device.steps[-2].positions.tolist() == [8], "computed, and one ahead"


@pytest.mark.parametrize("how", ["copied", "moved"])
def test_a_row_went_on_from_a_state_that_is_no_longer_its_sequences(how: str) -> None:
    """Taken back and begun again in one plan, where the row in flight would have been: it is computed anew."""
    device = Table()
    runner = after(device, work(0, 8, -1))
    slot = SLOT if how == "copied" else 2
    runner.execute(plan(1, replace(work(8, 9, -1, output=1), state_slot=slot), [(OTHER, slot)]))
    assert (runner.num_found, runner.num_computed) == (0, 2)
    assert device.num_collected == 2, "nobody waits for what was guessed"
    assert [inputs.positions[0] for inputs in device.steps[1:]] == [8, 8, 9]


class Damaged(Table):
    """Whose logits leave no token."""

    def submit(self, inputs: StepInputs, tasks: Sequence[SampleTask], *_: Any, **__: Any) -> DrawnTokens:
        self.steps.append(inputs)
        return DrawnTokens(np.full(len(tasks), -1, np.int32), False, [], [])


def test_a_step_that_changed_states_is_not_computed_again() -> None:
    device = Damaged()
    with pytest.raises(InvariantError, match=f"^sequence {SEQ_ID}: its logits are no numbers"):
        after(device, work(0, 9))
    assert len(device.steps) == 1


def test_one_by_one_no_row_is_guessed_that_the_next_of_the_step_would_spoil(tmp_path: Path) -> None:
    """As after a crash: the state of each has the tokens that were asked for, and no other."""
    device = Table()
    ledger.create(tmp_path / "ledger")
    runner = AheadRunner(device, 9, 8, 24, states=device)  # type: ignore[arg-type]
    executor = NotingExecutor(runner.execute, ledger.Ledger(tmp_path / "ledger"))
    executor.owners, executor.is_careful = {SEQ_ID: 1, 8: 2}, True
    for start, end in ((0, 8), (8, 9), (9, 10)):
        first = work(start, end, -1, output=max(0, start - 7))
        (task,) = first.samples
        second = replace(first, seq_id=8, samples=(replace(task, seq_id=8),), state_slot=2, block_tables=([5, 1, 3],))
        result = executor(StepPlan(start, [first, second], 2 * (end - start)))
        assert [token.seq_id for token in result.tokens] == [SEQ_ID, 8]
    assert [inputs.positions[-1] for inputs in device.steps] == [7, 7, 8, 8, 9, 9]
