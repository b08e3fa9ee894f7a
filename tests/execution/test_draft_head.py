"""Hidden states by place, and a head that reads them and leaves its own for the next one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.backends.step_inputs import StepInputs
from albireo.backends.step_outputs import NOTHING, StepOutputs
from albireo.execution.draft_head import HeadModel, HiddenStates
from albireo.execution.inputs import pack_step
from albireo.execution.runner import Runner
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan

torch = pytest.importorskip("torch")

NONE = np.zeros((0, 0), np.int32)


def rows_of(*values: float) -> NDArray[np.float32]:
    return np.array([[value, -value] for value in values], np.float32)


def step(*works: tuple[list[int], int, list[int]], num_drawn: int = 1) -> StepInputs:
    """Args: works: tokens, the position of the first, the block table; the first num_drawn draw a token."""
    found = []
    for i, (tokens, start, table) in enumerate(works):
        task = SampleTask(i, SamplingParams(temperature=0), 0, [], [])
        found.append(SequenceWork(i, tokens, start, (table,), (task,) if i < num_drawn else ()))
    return pack_step(StepPlan(0, found, sum(len(work.token_ids) for work in found)), 4, num_ahead=1).inputs


def outputs(taps: NDArray[np.float32] = NOTHING) -> StepOutputs:
    return StepOutputs(NOTHING, NONE, NOTHING, taps=taps)


class Leaves:
    """A head whose row leaves the hidden state that it read times two. seen: what it read."""

    def __init__(self) -> None:
        self.seen: list[NDArray[np.float32]] = []

    def run(self, inputs: StepInputs) -> StepOutputs:
        (given,) = inputs.given
        self.seen.append(given.copy())
        found, top = outputs(), np.full((len(inputs.top_rows), 3), -1, np.int32)
        top[:, :2] = 1, 0
        logits = np.arange(3, dtype=np.float32)[None].repeat(len(inputs.logit_rows), 0)
        return replace(found, following=2 * given[inputs.out_rows], top_ids=top, logits=logits)


def test_they_lie_by_place_and_are_copied_by_block() -> None:
    states = HiddenStates(8, 4, 2, is_exact=True)
    states.take(step(([5, 6, 7], 3, [2, 5])), outputs(rows_of(1, 2, 3)))
    assert np.array_equal(states.read(np.array([2 * 4 + 3, 5 * 4, 5 * 4 + 1])), rows_of(1, 2, 3))
    states.copy_blocks([(5, 7), (7, 6)])
    assert np.array_equal(states.read(np.array([6 * 4, 6 * 4 + 1])), rows_of(2, 3))
    assert [HiddenStates.bytes_per_token(2, is_exact=is_exact) for is_exact in (True, False)] == [8, 4]


def test_of_block_groups_they_lie_in_that_of_all_positions() -> None:
    states = HiddenStates(8, 4, 2, is_exact=True, group=1)
    inputs = step(([5, 6], 0, [2]))
    groups = np.stack([inputs.slots, inputs.slots + np.int32(12)])
    states.take(replace(inputs, group_slots=groups), outputs(rows_of(1, 2)))
    assert np.array_equal(states.read(np.array([20, 21])), rows_of(1, 2))


def test_they_are_rounded_as_others_round_to_bfloat16() -> None:
    rng = np.random.default_rng(1)
    numbers = np.concatenate([rng.standard_normal(400, np.float32) * np.float32(1e3), [0.0, -0.0, 1e30, -1e-30]])
    ties = (np.arange(1 << 10, dtype=np.uint32) << np.uint32(15) | np.uint32(0x3F800000)).view(np.float32)
    rows = np.concatenate([numbers, ties]).astype(np.float32).reshape(-1, 2)
    states = HiddenStates(1 + len(rows) // 4, 4, 2, is_exact=False)
    slots = np.arange(len(rows))
    states.write(slots, rows)
    wanted = torch.from_numpy(rows).to(torch.bfloat16).to(torch.float32).numpy()
    assert states.read(slots).tobytes() == wanted.tobytes()
    assert HiddenStates.bytes_per_token(10, is_exact=False) == 20


def test_what_combines_several_is_given_all_of_them() -> None:
    class Sums:
        def run(self, inputs: StepInputs) -> StepOutputs:
            (given,) = inputs.given
            assert inputs.num_tokens == len(given) and inputs.group_slots is None
            return replace(outputs(), hidden=given[inputs.logit_rows, :2] + given[inputs.logit_rows, 2:])

    states = HiddenStates(8, 4, 2, is_exact=True, combine=Sums())
    taps = np.concatenate([rows_of(1, 2), rows_of(10, 20)], axis=1)
    states.take(step(([5, 6], 0, [3])), outputs(taps))
    assert np.array_equal(states.read(np.array([12, 13])), rows_of(11, 22))


def test_a_head_goes_on_from_what_it_left_behind_rows_that_draw() -> None:
    """Also where the next place is in the next block; rows that do not draw leave nothing."""
    states, model = HiddenStates(8, 4, 2, is_exact=True), Leaves()
    head = HeadModel(model, states, 4, 3)
    states.write(np.array([8, 9, 10, 11, 12, 24, 25, 26]), rows_of(1, 2, 3, 4, 99, 5, 6, 7))
    found = head.run(step(([5, 6], 2, [2, 3]), ([7, 8], 0, [6]), num_drawn=1))
    assert np.array_equal(model.seen[0], rows_of(3, 4, 5, 6)) and found.top_ids[:, 0].tolist() == [1]
    assert np.array_equal(states.read(np.array([12, 26])), rows_of(8, 7))
    head.run(step(([5], 4, [2, 3])))
    assert np.array_equal(model.seen[1], rows_of(8))
    head.run(step(([5], 7, [2, 3])))
    assert np.array_equal(states.read(np.arange(8, 16)), rows_of(1, 2, 3, 4, 8, 16, 0, 0)), "the table ends there"


def test_ids_of_its_own_are_the_models_outside() -> None:
    head = HeadModel(Leaves(), HiddenStates(8, 4, 2, is_exact=True), 4, 9, np.array([2, 5, 7], np.int32))
    inputs = step(([5, 6], 0, [2]))
    assert head.run(inputs).top_ids.tolist() == [[5, 2, -1]]
    logits = head.run(replace(inputs, logit_rows=inputs.top_rows, top_rows=inputs.top_rows[:0])).logits
    assert logits[0, [2, 5, 7]].tolist() == [0, 1, 2] and np.isneginf(np.delete(logits, [2, 5, 7])).all()


def test_one_that_reads_the_cache_leaves_its_state_where_it_reads_and_computes_no_step_twice() -> None:
    """The best few logits, which are equal here, would not decide what is drawn."""
    states, model = HiddenStates(8, 4, 2, is_exact=True), Leaves()
    head = HeadModel(model, states, 4, 3, reads_cache=True)
    states.write(np.array([9, 10]), rows_of(3, 4))
    task = SampleTask(0, SamplingParams(temperature=1.0, top_k=2), 7, [], [])
    plan = StepPlan(0, [SequenceWork(0, [5], 1, ([2],), (task,))], 1)
    runner = Runner(head, 3, 4, states=head)
    for read in (3, 6):
        assert runner.execute(plan).tokens[0].token_id in (1, 2)
        assert np.array_equal(model.seen.pop(), rows_of(read)) and not model.seen
    assert np.array_equal(states.read(np.array([9, 10])), rows_of(12, 4))
