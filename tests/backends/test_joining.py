"""join_top: the best of all parts is what top_logits finds in the whole."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.joining import join_top
from albireo.backends.reference.call import OpCall
from albireo.backends.reference.rows import top_logits
from backends.cpu.harness import ints, rows_step

WIDTHS = [70, 3, 64, 1]


@pytest.mark.parametrize("kind", ["distinct", "ties", "infinite", "not numbers"])
def test_as_in_the_whole_vocabulary(kind: str) -> None:
    rng = np.random.default_rng(3)
    counts = ints([1, 2, 65, 5, 1])
    logits = rng.standard_normal((5, sum(WIDTHS)), np.float32)
    if kind == "ties":
        logits = np.round(logits)
    elif kind == "infinite":
        logits[:, ::2], logits[2] = -np.inf, -np.inf
    elif kind == "not numbers":
        logits[:, [5, 71, 100]] = np.nan
    step = rows_step(5, top_rows=range(5), top_counts=counts)
    parts = np.split(logits, np.cumsum(WIDTHS)[:-1], axis=1)
    found = [top_logits(OpCall({"logits": part}, {}, step)) for part in parts]
    ids, values = join_top([f[0] for f in found], [f[1] for f in found], WIDTHS, counts)
    wanted_ids, wanted_values = top_logits(OpCall({"logits": logits}, {}, step))
    assert np.array_equal(ids, wanted_ids) and ids.dtype == np.int32
    assert np.array_equal(values, wanted_values, equal_nan=True) and values.dtype == np.float32


def test_a_step_in_which_no_row_asks() -> None:
    none = np.zeros((0, 65), np.int32), np.zeros((0, 65), np.float32)
    ids, values = join_top([none[0]] * 2, [none[1]] * 2, [4, 4], ints([]))
    assert ids.shape == values.shape == (0, 65)
