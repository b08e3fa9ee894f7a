"""A step on the device is the step that was given, and padding that does no harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.feed_drawn import feed_drawn
from albireo.backends.cuda.staging import HEARD_COLUMNS, TYPE_COLUMNS, Arrays, Staging, Tail
from albireo.backends.cuda.step import DeviceStep
from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError

MAXIMA = {"T": 12, "B": 6, "R": 6, "G": 6, "S": 12, "D": 6, "L": 0}
CPU = torch.device("cpu")


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def step(count: int, first: int) -> StepInputs:
    """count sequences of one token at position 20."""
    numbers = np.arange(count, dtype=np.int32)
    return StepInputs(
        token_ids=numbers + first,
        positions=np.full(count, 20, np.int32),
        slots=numbers * 16 + 4,
        query_start=np.arange(count + 1, dtype=np.int32),
        context_len=np.full(count, 21, np.int32),
        block_table=np.stack([numbers + 1, numbers + 50], axis=1),
        logit_rows=ints(),
        top_rows=numbers,
    )


def tables(found: DeviceStep, count: int) -> list[list[int]]:
    """The first blocks of each sequence."""
    return [found.block_table[start : start + count].tolist() for start in found.table_start[0].tolist()]


def test_what_is_given_arrives() -> None:
    staging, inputs = Staging(MAXIMA, 4, 16, CPU), step(3, 7)
    sizes = {"T": 3, "B": 3, "R": 0, "G": 3, "S": 3}
    staging.fill(inputs, sizes)
    found = staging.step(sizes)
    assert found.slots[0].tolist() == inputs.slots.tolist()
    for name in ("token_ids", "positions", "query_start", "context_len", "top_counts"):
        assert getattr(found, name).tolist() == getattr(inputs, name).tolist(), name
    assert tables(found, 2) == inputs.block_table.tolist()
    assert found.rows["top_rows"].tolist() == found.rows["out_rows"].tolist() == [0, 1, 2]
    assert found.rows["top_pos"].tolist() == [0, 1, 2]
    assert found.rows["logit_rows"].tolist() == []


def test_padding_points_at_the_null_block_whatever_was_there_before() -> None:
    staging = Staging(MAXIMA, 4, 16, CPU)
    full = {"T": 6, "B": 6, "R": 0, "G": 6, "S": 6}
    staging.fill(step(6, 100), full)
    staging.fill(step(2, 7), full)
    found = staging.step(full)
    assert found.token_ids.tolist() == [7, 8, 0, 0, 0, 0]
    assert found.positions.tolist() == [20, 20, 0, 0, 0, 0]
    assert found.slots[0].tolist() == [4, 20, 0, 0, 0, 0]
    assert found.query_start.tolist() == [0, 1, 2, 2, 2, 2, 2], "padding sequences have no rows"
    assert found.context_len.tolist() == [21, 21, 0, 0, 0, 0]
    assert found.top_counts.tolist() == [1] * 6
    assert found.rows["top_rows"].tolist() == [0, 1, 0, 0, 0, 0]


def test_snapshots_are_those_of_the_step_alone() -> None:
    """Of padding, and of a step behind one that had some, there are none: a slot of 0 is somebody's."""
    staging, sizes = Staging(MAXIMA, 4, 16, CPU), {"T": 4, "B": 4, "R": 0, "G": 4, "S": 4}
    given = {"state_slots": ints(3, 0, 1), "snapshot_slots": ints(-1, 2, 4), "snapshot_rows": ints(0, 1, 1)}
    staging.fill(replace(step(3, 7), **given), sizes)
    found = staging.step(sizes)
    assert found.state_slots.tolist() == [3, 0, 1, 0]
    assert (found.snapshot_slots.tolist(), found.snapshot_rows.tolist()) == ([-1, 2, 4, 0], [0, 1, 1, 0])
    staging.fill(step(3, 7), sizes)
    assert staging.step(sizes).snapshot_rows.tolist() == [0] * 4


def test_types_of_tokens_are_those_of_the_step_alone() -> None:
    staging, sizes = Staging(MAXIMA, 4, 16, CPU, TYPE_COLUMNS), {"T": 4, "B": 4, "R": 0, "G": 4, "S": 4}
    found = staging.step(sizes)
    assert found.token_types is not None
    staging.fill(replace(step(3, 7), token_types=ints(0, 1, 1)), sizes)
    assert found.token_types.tolist() == [0, 1, 1, 0]
    staging.fill(step(3, 7), sizes)
    assert found.token_types.tolist() == [0] * 4
    assert Staging(MAXIMA, 4, 16, CPU).step(sizes).token_types is None


def test_what_is_heard_is_that_of_the_step_alone() -> None:
    """Of a program that listens; padding hears all, as do sequences of which nothing is said."""
    staging, sizes = Staging(MAXIMA, 4, 16, CPU, HEARD_COLUMNS), {"T": 4, "B": 4, "R": 0, "G": 4, "S": 4}
    for inputs, wanted in ((replace(step(3, 7), row_ends=ints(5, 0, 9)), [5, 0, 9, 0]), (step(2, 7), [0] * 4)):
        staging.fill(inputs, sizes)
        found = staging.step(sizes).heard
        assert found is not None and found.tolist() == wanted
    assert Staging(MAXIMA, 4, 16, CPU).step(sizes).heard is None


def test_both_kinds_of_rows_leave_the_model_in_order() -> None:
    staging = Staging(MAXIMA, 4, 16, CPU)
    inputs = StepInputs(
        token_ids=ints(1, 2, 3, 4),
        positions=ints(0, 1, 2, 3),
        slots=ints(16, 17, 18, 19),
        query_start=ints(0, 4),
        context_len=ints(4),
        block_table=np.array([[1]], np.int32),
        logit_rows=ints(0, 1),
        top_rows=ints(3),
        top_counts=ints(5),
    )
    sizes = {**inputs.sizes, "B": 1}
    staging.fill(inputs, sizes)
    found = staging.step(sizes)
    assert found.rows["out_rows"].tolist() == [0, 1, 3]
    assert found.rows["logit_pos"].tolist() == [0, 1] and found.rows["top_pos"].tolist() == [2]
    assert found.top_counts.tolist() == [5]


def test_addresses_stay() -> None:
    staging = Staging(MAXIMA, 4, 16, CPU)
    sizes = {"T": 4, "B": 4, "R": 0, "G": 4, "S": 4}
    before = staging.step(sizes)
    staging.fill(step(4, 30), sizes)
    assert before.token_ids.tolist() == [30, 31, 32, 33], "a recorded launch reads what was filled in later"


def test_tokens_may_come_from_the_step_before() -> None:
    staging = Staging(MAXIMA, 4, 16, CPU)
    sizes = {"T": 4, "B": 4, "R": 0, "G": 4, "S": 4}
    drawn = torch.tensor([-1, 71, 72], dtype=torch.int32)
    staging.fill(step(3, 7), sizes, ints(2, -1, 0))
    found = staging.step(sizes)
    feed_drawn(found.token_ids, staging.tensors(sizes, ("sources",))["sources"], drawn)
    assert found.token_ids.tolist() == [72, 8, 0, 0], "what could not be drawn is no place to read from"
    staging.fill(step(3, 7), sizes)
    feed_drawn(found.token_ids, staging.tensors(sizes, ("sources",))["sources"], drawn)
    assert found.token_ids.tolist() == [7, 8, 9, 0]


def test_a_long_sequence_does_not_make_tables_of_short_ones_long() -> None:
    staging = Staging(MAXIMA, 40, 16, CPU)
    table = np.zeros((3, 40), np.int32)
    table[0, :2], table[1], table[2, 0] = [5, 6], np.arange(100, 140), 9
    contexts = ints(20, 640, 1)
    given = replace(step(3, 7), positions=contexts - 1, context_len=contexts, block_table=table)
    sizes = {"T": 3, "B": 3, "R": 0, "G": 3, "S": 3}
    staging.fill(given, sizes)
    found = staging.step(sizes)
    starts = found.table_start[0].tolist()
    assert [starts[1] - starts[0], starts[2] - starts[1]] == [2, 40]
    assert found.block_table[starts[0] : starts[2] + 1].tolist() == [5, 6, *range(100, 140), 9]


def test_a_step_is_one_copy_of_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    staging = Staging(MAXIMA, 4, 16, CPU, {"extra": ("D", np.float64)}, tail=1000)
    copies: list[int] = []
    copy = torch.Tensor.copy_

    def counted(self: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        copies.append(source.numel())
        return copy(self, source, non_blocking)

    def write(columns: Arrays, tail: Tail) -> None:
        columns["extra"][:] = [0.5, 1e300]
        tail.put(ints(1, 2, 3))

    monkeypatch.setattr(torch.Tensor, "copy_", counted)
    sizes = {"T": 2, "B": 2, "R": 0, "G": 2, "S": 2, "D": 2}
    staging.fill(step(2, 7), sizes, write=write)
    assert len(copies) == 1 and copies[0] < 300, "arrays at their own sizes, tables, and the tail that is used"
    assert staging.tensors(sizes, ("extra",))["extra"].tolist() == [0.5, 1e300]


def test_a_tail_without_room_is_refused() -> None:
    staging = Staging(MAXIMA, 4, 16, CPU, tail=8)
    with pytest.raises(InvariantError, match="words of staging"):
        staging.fill(
            step(2, 7), MAXIMA, write=lambda columns, tail: [tail.put(ints(*range(9))) for _ in range(9)] and None
        )


def test_steps_on_their_way_do_not_share_host_memory() -> None:
    """As many as may be under way; on a GPU a copy reads it later."""
    staging = Staging(MAXIMA, 4, 16, CPU)
    sizes = {"T": 2, "B": 2, "R": 0, "G": 2, "S": 2}
    places = set()
    for first in range(3):
        staging.fill(step(2, first), sizes)
        places.add(staging._hosts[staging._turn].words.ctypes.data)
    assert len(places) == 3


def test_each_block_group_has_slots_and_tables_in_units_of_its_layers() -> None:
    staging, inputs = Staging(MAXIMA, 4, 16, CPU, units=(2, 3)), step(3, 7)
    sizes = {"T": 4, "B": 4, "R": 0, "G": 4, "S": 4}
    tables = np.stack([inputs.block_table, inputs.block_table + 100])
    slots = tables[:, np.arange(3), 1] * 16 + 4
    staging.fill(replace(inputs, group_slots=slots, group_tables=tables), sizes)
    found = staging.step(sizes)
    for group, unit in enumerate((2, 3)):
        starts = found.table_start[group][:3].tolist()
        assert [found.block_table[start : start + 2].tolist() for start in starts] == (tables[group] * unit).tolist()
        assert found.slots[group].tolist() == [*(tables[group, :, 1] * unit * 16 + 4), 0]


def test_places_that_a_window_has_left_are_the_block_behind_them() -> None:
    """The null block has what padding wrote, which may be no number."""
    staging, inputs = Staging(MAXIMA, 4, 16, CPU, units=(2,)), step(2, 7)
    sizes = {"T": 2, "B": 2, "R": 0, "G": 2, "S": 2}
    staging.fill(replace(inputs, block_table=np.array([[0, 5], [3, 6]], np.int32)), sizes)
    assert tables(staging.step(sizes), 2) == [[10, 10], [6, 12]]
