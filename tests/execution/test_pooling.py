"""Hidden states to embeddings: exact means, lengths of 1, and no trace of how a prompt was cut."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.execution.pooling import Scaled, pool
from albireo.params import PoolingParams
from albireo.step import PoolingTask

PLAIN: dict[str, Any] = {"pooling_type": "mean", "use_activation": False}


def states(rows: int, seed: int, width: int = 7) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((rows, width)) * 10.0 ** rng.integers(-6, 6, (rows, width))).astype(np.float32)


def pooled(hidden: NDArray[np.float32], cuts: list[int], **params: Any) -> list[float]:
    """As a prompt whose steps end behind the rows of cuts."""
    asked = PoolingParams(**params)
    sums: list[float] = []
    for start, end in zip([0, *cuts], [*cuts, len(hidden)], strict=True):
        sums = pool(PoolingTask(asked, end - start, start, sums, end == len(hidden)), hidden[start:end], Scaled())
    return sums


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_is_the_exact_one_rounded(seed: int) -> None:
    """To float32; the sum in float64 errs far below that, but where values nearly cancel."""
    hidden = states(300, seed)
    exact = [sum(map(Fraction, column)) / 300 for column in hidden.T.tolist()]
    scale = np.abs(hidden.astype(np.float64)).sum(axis=0) / 300
    got = np.array(pooled(hidden, [], **PLAIN))
    bound = np.abs(np.array(exact, np.float64)) * 2.0**-24 + scale * 300 * 2.0**-53
    assert (np.abs(got - np.array(exact, np.float64)) <= bound).all()


@pytest.mark.parametrize("params", [{}, {"use_activation": False}, {"dimensions": 3}])
@pytest.mark.parametrize("cuts", [[1], [64, 128], list(range(1, 200)), [199]])
def test_cuts_leave_no_trace(cuts: list[int], params: dict[str, Any]) -> None:
    hidden = states(200, 1)
    assert pooled(hidden, cuts, pooling_type="mean", **params) == pooled(hidden, [], pooling_type="mean", **params)


def test_the_last_is_the_last_row_to_the_bit() -> None:
    hidden = states(3, 2)
    assert pooled(hidden, [], use_activation=False) == hidden[-1].tolist()


@pytest.mark.parametrize("kind", ["last", "mean"])
@pytest.mark.parametrize("dimensions", [None, 1, 4, 7])
def test_first_dimensions_are_kept_then_scaled_to_one(kind: Any, dimensions: int | None) -> None:
    hidden = states(9, 3)
    whole = np.array(pooled(hidden, [], pooling_type=kind, use_activation=False))
    got = pooled(hidden, [], pooling_type=kind, dimensions=dimensions)
    assert len(got) == (dimensions or 7)
    assert math.sqrt(math.fsum(x * x for x in got)) == pytest.approx(1, abs=1e-7)
    # The values that are scaled are rounded to float32 first here, and last there.
    np.testing.assert_allclose(got, whole[:dimensions] / np.linalg.norm(whole[:dimensions]), rtol=3e-7)
    assert all(x == np.float32(x) for x in got)


def test_nothing_has_no_direction() -> None:
    assert pooled(np.zeros((2, 4), np.float32), [], pooling_type="mean") == [0.0] * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["last", "mean"])
def test_what_is_no_number_is_refused(bad: float, kind: Any) -> None:
    hidden = states(3, 4)
    hidden[2, 5] = bad
    with pytest.raises(InvariantError, match="not numbers"):
        pooled(hidden, [], pooling_type=kind)
