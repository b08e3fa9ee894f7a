"""top at every level: the best of logits in memory, in head_top's order, whoever looks at which columns."""

from __future__ import annotations

import numpy as np
import pytest

from backends.cpu.harness import Call, Guarded, ints, normal, rows_step, run, variants

LEVELS = [level for dtype, level in variants("top") if dtype == "float32"]


def best(x: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and values by falling value, of equals the lowest id."""
    ids = np.lexsort((np.arange(x.shape[1])[None].repeat(len(x), 0), -x), axis=-1)[:, :count]
    return ids, np.take_along_axis(x, ids, -1)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("width", [1, 63, 64, 65, 5000, 12289])
@pytest.mark.parametrize("level", LEVELS)
def test_top(level: str, width: int, threads: int) -> None:
    x = np.round(normal(4, width), 1)  # many are equal
    counts = [1, 5, 65, 2]
    step = rows_step(4, top_rows=range(4), top_counts=ints(counts))
    ids, values = run([Call("top", level, "float32", {"x": Guarded(x), "n": width, "rows": "G"})], step, threads)
    wanted_ids, wanted_values = best(x, 65)
    for row, count in enumerate(counts):
        found = min(count, width)
        assert np.array_equal(ids[row, :found], wanted_ids[row, :found])
        assert np.array_equal(values[row, :found], wanted_values[row, :found] + 0.0)
        assert (ids[row, found:] == -1).all() and np.isneginf(values[row, found:]).all()


@pytest.mark.parametrize("level", LEVELS)
def test_a_nan_wins(level: str) -> None:
    x = normal(2, 200)
    x[1, 150] = np.nan
    step = rows_step(2, top_rows=range(2))
    ids, values = run([Call("top", level, "float32", {"x": Guarded(x), "n": 200, "rows": "G"})], step)
    assert ids[1, 0] == 150 and np.isnan(values[1, 0]) and np.isfinite(values[0, 0])
