"""StepInputs.check: each contradiction is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from albireo.backends.step_inputs import StepInputs
from albireo.errors import InvariantError
from step_batches import Rows, Work, make_step


def good() -> StepInputs:
    return make_step([Work([5, 6, 7], 9, [3, 1]), Work([8], 0, [2])], 8)


def test_a_good_step_passes_and_knows_its_sizes() -> None:
    step = good()
    step.check(8)
    assert step.sizes == {"T": 4, "R": 4, "G": 2, "S": 6} and step.num_sequences == 2
    assert step.slots.tolist() == [9, 10, 11, 16]
    assert step.context_len.tolist() == [12, 1]


@pytest.mark.parametrize("logits", ["all", "last", "none"])
@pytest.mark.parametrize("top", ["all", "last", "none"])
def test_rows_that_leave_are_logit_rows_then_top_rows(logits: Rows, top: Rows) -> None:
    step = make_step([Work([5, 6, 7], 9, [3, 1]), Work([8], 0, [2])], 8, logits, top)
    counts = {"all": 4, "last": 2, "none": 0}
    assert step.sizes == {"T": 4, "R": counts[logits], "G": counts[top], "S": counts[logits] + counts[top]}
    assert np.array_equal(step.out_rows[step.logit_pos], step.logit_rows)
    assert np.array_equal(step.out_rows[step.top_pos], step.top_rows)
    assert [*step.logit_pos, *step.top_pos] == [*range(len(step.out_rows))]
    assert {a.dtype.name for a in (step.out_rows, step.logit_pos, step.top_pos)} == {"int32"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("positions", [9, 10, 11]),
        ("positions", [9, 10, 12, 0]),
        ("slots", [9, 10, 12, 16]),
        ("query_start", [0, 3, 5]),
        ("query_start", [1, 3, 4]),
        ("query_start", [0, 5, 4]),
        ("context_len", [13, 1]),
        ("context_len", [1, 1]),
        ("block_table", [[3], [2]]),
        ("logit_rows", [0, 4]),
        ("top_rows", [-1]),
    ],
)
def test_a_contradiction_is_named(name: str, value: object) -> None:
    with pytest.raises(InvariantError, match="step "):
        replace(good(), **{name: np.array(value, np.int32)}).check(8)
