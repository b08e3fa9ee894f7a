"""Plans as flat arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from albireo.errors import InvariantError
from albireo.execution.inputs import GroupTables, TableRows, pack_next, pack_step, with_logits
from albireo.params import SamplingParams
from albireo.step import SampleTask, SequenceWork, StepPlan

GREEDY = SamplingParams(temperature=0)


def task(seq_id: int, params: SamplingParams = GREEDY) -> SampleTask:
    return SampleTask(seq_id, params, seed=0, prompt_token_ids=[1], output_token_ids=[])


def plan(*works: SequenceWork) -> StepPlan:
    return StepPlan(0, list(works), sum(len(w.token_ids) for w in works))


def work(seq_id: int, token_ids: list[int], start: int, blocks: list[int], **more: Any) -> SequenceWork:
    return SequenceWork(seq_id, token_ids, start, (blocks,), **more)


def test_sequences_are_laid_end_to_end() -> None:
    step = pack_step(
        plan(work(1, [11, 12, 13], 15, [4, 9], samples=(task(1),)), work(2, [21], 0, [7], samples=(task(2),))), 16
    )
    inputs = step.inputs
    inputs.check(16)
    assert inputs.token_ids.tolist() == [11, 12, 13, 21]
    assert inputs.positions.tolist() == [15, 16, 17, 0]
    assert inputs.slots.tolist() == [4 * 16 + 15, 9 * 16, 9 * 16 + 1, 7 * 16]
    assert inputs.query_start.tolist() == [0, 3, 4]
    assert inputs.context_len.tolist() == [18, 1]
    assert inputs.block_table.tolist() == [[4, 9], [7, 0]]
    assert {a.dtype for a in (inputs.slots, inputs.positions, inputs.block_table)} == {np.dtype(np.int32)}


def test_greedy_rows_ask_for_the_arg_max_only() -> None:
    step = pack_step(plan(work(1, [1, 2], 0, [3], samples=(task(1),)), work(2, [5], 0, [4])), 16)
    assert step.is_top
    assert (step.inputs.top_rows.tolist(), step.inputs.logit_rows.tolist()) == ([1], [])


def test_one_task_that_needs_logits_takes_all_along_so_that_the_head_is_read_once() -> None:
    step = pack_step(
        plan(
            work(1, [1], 0, [3], samples=(task(1),)),
            work(2, [2], 0, [4], samples=(task(2, SamplingParams(temperature=1.0)),)),
        ),
        16,
    )
    assert not step.is_top
    assert (step.inputs.top_rows.tolist(), step.inputs.logit_rows.tolist()) == ([], [0, 1])


def test_top_k_asks_for_one_more_so_that_equals_of_the_last_are_seen() -> None:
    step = pack_step(
        plan(
            work(1, [1], 0, [3], samples=(task(1),)),
            work(2, [2], 0, [4], samples=(task(2, SamplingParams(top_k=20)), task(3, SamplingParams(top_k=64)))),
        ),
        16,
    )
    assert step.is_top
    assert (step.inputs.top_rows.tolist(), step.inputs.top_counts.tolist()) == ([0, 1], [1, 65])
    again = with_logits(step.inputs)
    again.check(16)
    assert (again.logit_rows.tolist(), again.top_rows.tolist(), again.top_counts.tolist()) == ([0, 1], [], [])


def test_siblings_share_a_row() -> None:
    step = pack_step(plan(work(1, [1, 2], 0, [3], samples=(task(1), task(2), task(3)))), 16)
    assert step.task_rows == [0, 0, 0]
    assert step.inputs.top_rows.tolist() == [1]


def test_prompt_log_probabilities_want_a_row_a_target_and_the_last_row_besides() -> None:
    wanted = work(1, [1, 2, 3], 0, [3], samples=(task(1),), prompt_logprobs=0, prompt_targets=[2, 3])
    step = pack_step(plan(work(9, [7, 8], 0, [5]), wanted), 16)
    assert step.inputs.logit_rows.tolist() == [2, 3, 4]
    assert step.prompt_rows == [(wanted, 0)]
    assert step.task_rows == [2]


def test_a_table_longer_than_the_context_is_cut() -> None:
    step = pack_step(plan(work(1, [1], 3, [5, 6, 7])), 16)
    assert step.inputs.block_table.tolist() == [[5]]


def test_tables_that_are_kept_are_those_of_now_whatever_was_there_before() -> None:
    """Growing, shrinking, changed in place, more and fewer of them."""
    rng, rows = np.random.default_rng(0), TableRows()
    tables = [rng.integers(1, 99, int(rng.integers(0, 9))).tolist() for _ in range(5)]
    for _ in range(60):
        for table in tables:
            kind = int(rng.integers(4))
            if kind == 0:
                table += rng.integers(1, 99, int(rng.integers(1, 6))).tolist()
            elif kind == 1 and table:
                table[int(rng.integers(len(table)))] = 77
            elif kind == 2 and rng.random() < 0.2:
                table.clear()
        given = [tables[i] for i in rng.permutation(5)[: int(rng.integers(1, 6))]]
        found = rows.of(given)
        assert len(found) == len(given)
        whole = [table + [0] * (found.shape[1] - len(table)) for table in given]
        assert found.tolist() == whole, "the null block behind"


def test_a_decoding_step_is_packed_as_any_other() -> None:
    works = [work(i, [20 + i], 14 + i, [4 + i, 9 + i], samples=(task(i),), state_slot=7 - i) for i in range(4)]
    whole = pack_step(plan(*works), 16, is_top_greedy=True)
    positions, tables = [each.num_computed_tokens for each in works], GroupTables()
    for is_top in (True, False):
        tasks = [each.samples[0] for each in works]
        table = tables.of([each.block_tables for each in works], 2)
        step = pack_next([20, 21, 22, 23], positions, table, tasks, 16, is_top, [7, 6, 5, 4])
        step.inputs.check(16)
        wanted = whole.inputs if is_top == whole.is_top else with_logits(whole.inputs)
        assert (step.tasks, step.task_rows, step.is_top) == (whole.tasks, whole.task_rows, is_top)
        for ours, theirs in zip(step.inputs.arrays, wanted.arrays, strict=True):
            assert (ours[:, :2] if ours.ndim == 2 else ours).tolist() == theirs.tolist()
        assert step.inputs.state_slots is not None and wanted.state_slots is not None
        assert step.inputs.state_slots.tolist() == wanted.state_slots.tolist() == [7, 6, 5, 4]


def test_each_block_group_has_slots_and_tables_of_its_own() -> None:
    """Of a group with a window the null block stands where nobody looks any more."""
    works = [work(1, [7, 8], 31, [5, 6, 9]), work(2, [3], 2, [4])]
    works[0].block_tables, works[1].block_tables = ([5, 6, 9], [0, 2, 3]), ([4], [8])
    given = pack_step(plan(*works), 16).inputs
    assert given.block_table.tolist() == [[5, 6, 9], [4, 0, 0]]
    slots, tables = given.of_groups((1, 1), 16)
    assert tables.tolist() == [[[5, 6, 9], [4, 0, 0]], [[0, 2, 3], [8, 0, 0]]]
    assert slots.tolist() == [[6 * 16 + 15, 9 * 16, 4 * 16 + 2], [2 * 16 + 15, 3 * 16, 8 * 16 + 2]]
    given.check(16)
    with pytest.raises(InvariantError, match="a step of 2 block groups, the program has 3"):
        given.of_groups((1, 1, 1), 16)


def test_a_step_with_one_table_has_the_blocks_of_all_groups_side_by_side() -> None:
    given = pack_step(plan(work(1, [7, 8], 15, [5, 6])), 16).inputs
    assert given.group_tables is None
    slots, tables = given.of_groups((1, 1, 1), 16)
    assert tables.tolist() == [[[15, 18]], [[16, 19]], [[17, 20]]]
    assert slots.tolist() == [[15 * 16 + 15, 18 * 16], [16 * 16 + 15, 19 * 16], [17 * 16 + 15, 20 * 16]]
