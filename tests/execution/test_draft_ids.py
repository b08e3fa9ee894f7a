"""DraftIds: what was said has a row, what was not met for longest makes room."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from albireo.execution.draft_ids import DraftIds

ROWS, NUM_IDS, VOCAB = 4, 16, 100


class Matrix:
    """Attributes: rows: the id of each; puts: where rows were put."""

    def __init__(self) -> None:
        self.rows = list(range(NUM_IDS))
        self.puts: list[int] = []

    def put(self, first: int, ids: NDArray[np.int32]) -> None:
        assert first % ROWS == 0 and len(ids) == ROWS
        self.rows[first : first + ROWS] = ids.tolist()
        self.puts.append(first)


def met(*batches: list[int]) -> tuple[DraftIds, Matrix]:
    matrix = Matrix()
    ids = DraftIds(VOCAB, NUM_IDS, matrix.put, ROWS)
    for batch in batches:
        ids.meet(np.array(batch, np.int32))
    return ids, matrix


def test_tokens_that_have_rows_change_nothing() -> None:
    ids, matrix = met([3, 3, 15, 0])
    assert not matrix.puts and ids.of_row.tolist() == matrix.rows == list(range(NUM_IDS))


def test_what_was_met_stays_and_what_was_not_makes_room() -> None:
    _, matrix = met([0, 2, 5], [50, 51, 50, 52])
    assert matrix.rows[:8] == [0, 50, 2, 51, 52, 5, 6, 7] and matrix.puts == [0, 4]


def test_what_is_said_beside_what_is_new_stays() -> None:
    """Also where all were met, so that the hand goes round once more: the first row, and any other."""
    _, matrix = met(list(range(NUM_IDS)), [0, 60], list(range(2, NUM_IDS)), [0, 60, 2, 61])
    assert matrix.rows == [0, 60, 2, 61, *range(4, NUM_IDS)]


def test_the_hand_goes_on_where_it_was() -> None:
    """Where all were met it has gone round once, and takes the first that was not met since."""
    _, matrix = met([50, 51, 52], [60], list(range(4, 16)), [61], [5], [62])
    assert matrix.rows == [50, 51, 52, 60, 61, 5, 62, *range(7, 16)]


def test_more_than_there_is_room_for_are_not_all_taken() -> None:
    _, matrix = met(list(range(40, 90)))
    assert sum(each >= 40 for each in matrix.rows) == NUM_IDS // 2


@given(st.lists(st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=20), max_size=30))
def test_the_matrix_has_the_rows_it_is_said_to_have(batches: list[list[int]]) -> None:
    ids, matrix = met(*batches)
    assert ids.of_row.tolist() == matrix.rows
    assert len(set(matrix.rows)) == NUM_IDS
    assert all(ids._row_of[each] == row for row, each in enumerate(matrix.rows))
    assert (ids._row_of >= 0).sum() == NUM_IDS
    if batches and len(set(batches[-1])) <= NUM_IDS // 2:
        assert set(batches[-1]) <= set(matrix.rows)
