"""GPTQ against the algorithm written out densely, against the best there is on a tiny problem, and its edges."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from albireo.encodings import encoding
from albireo.errors import ConfigError
from albireo.quantization.encoded import Encoded
from albireo.quantization.methods.gptq import compensation, gptq, inverse_factor
from albireo.quantization.methods.grid import Grid
from albireo.quantization.methods.progressive import search_progressive
from albireo.quantization.methods.search import search_grid


def rounded(weight: np.ndarray, moments: np.ndarray, grid: Grid, **options: Any) -> Encoded:
    return gptq(weight, compensation(moments, **options), grid)


def problem(n: int, k: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Weights, and moments of inputs that go together."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_t(5, (n, k)).astype(np.float32)
    x = rng.normal(size=(3 * k, k)) @ (np.eye(k) + 2 * rng.normal(size=(k, k)) / k**0.5)
    return weight, (x.T @ x / len(x)).astype(np.float32)


def dense(weight: np.ndarray, moments: np.ndarray, grid: Grid, damping: float, order: np.ndarray) -> np.ndarray:
    """Optimal brain quantization in a fixed order: after each input the inverse of what is left is computed anew."""
    hessian = moments.astype(np.float64) + damping * np.diagonal(moments).mean() * np.eye(len(moments))
    left, out = weight.astype(np.float64).copy(), np.zeros(weight.shape)
    remaining = list(order)
    while remaining:
        i = remaining[0]
        inverse = np.linalg.inv(hessian[np.ix_(remaining, remaining)])
        group = i // (grid.encoding.group or weight.shape[1])
        scale, zero = grid.scale[:, group].astype(np.float64), grid.zero[:, group]
        codes = np.clip(np.rint(left[:, i] / scale) + zero, grid.low[:, group], grid.high[:, group])
        out[:, i] = (codes - zero) * scale
        lost = (left[:, i] - out[:, i]) / inverse[0, 0]
        left[:, remaining] -= np.outer(lost, inverse[0])
        remaining = remaining[1:]
    return out


def output_error(weight: np.ndarray, rounded: np.ndarray, moments: np.ndarray) -> float:
    """Mean over inputs of the squared distance of outputs: the trace of (W - Q) H (W - Q)ᵀ."""
    lost = weight - rounded
    return float(np.einsum("nk,nk->", lost @ moments, lost, dtype=np.float64))


@pytest.mark.parametrize("is_ordered", [False, True])
@pytest.mark.parametrize("name", ["int8", "int4.g32"])
def test_it_is_the_published_algorithm(name: str, is_ordered: bool) -> None:
    # more inputs than a block, so that errors cross into the next
    weight, moments = problem(6, 160)
    grid = search_grid(weight, encoding(name), moments)
    order = np.argsort(-np.diagonal(moments), kind="stable") if is_ordered else np.arange(160)
    wanted = dense(weight, moments, grid, 0.01, order)
    seen = rounded(weight, moments, grid, is_ordered=is_ordered).decode()
    # float32 sums may send a weight that lies between two steps the other way, and those behind it with it
    assert np.mean(np.abs(seen - wanted) < 1e-6) > 0.97
    assert output_error(weight, seen, moments) < 1.03 * output_error(weight, wanted.astype(np.float32), moments)


@pytest.mark.parametrize("name", ["int8", "int8.g32", "int4.g32", "int4.g64", "int4p.g64", "fp8"])
def test_it_is_better_than_rounding_to_the_same_grid(name: str) -> None:
    weight, moments = problem(48, 192)
    search = search_progressive if name.startswith("int4p") else search_grid
    grid = search(weight, encoding(name), moments)
    nearest, found = grid.encode(weight), rounded(weight, moments, grid)
    assert output_error(weight, found.decode(), moments) < 0.8 * output_error(weight, nearest.decode(), moments)
    assert np.array_equal(found.scale, nearest.scale)
    assert str(found.encoding) == name


def test_it_comes_near_the_best_there_is() -> None:
    weight, moments = problem(12, 4, seed=3)
    codes = np.asarray(list(product(range(16), repeat=4)), np.float32)
    grid = search_grid(np.repeat(weight, 8, axis=1), encoding("int4.g32"))
    found = rounded(weight, moments, grid, damping=1e-6).decode()
    nearest = grid.encode(weight).decode()
    totals = np.zeros(3)
    for row in range(len(weight)):
        every = (codes - grid.zero[row, 0]) * grid.scale[row, 0] - weight[row]
        best = np.einsum("ck,kl,cl->c", every, moments, every).min()
        for i, seen in enumerate((found, nearest)):
            lost = seen[row] - weight[row]
            totals[i] += lost @ moments @ lost
            assert lost @ moments @ lost >= best * (1 - 1e-4)
        totals[2] += best
    assert totals[2] < totals[0] < 0.5 * (totals[1] + totals[2])


def test_the_weighting_says_what_is_left_of_an_error() -> None:
    """Move one weight by one; the best the inputs behind it can do is what the weighting says, by least squares."""
    _, moments = problem(1, 24, seed=5)
    counts, order = compensation(moments).weighting, np.argsort(-np.diagonal(moments), kind="stable")
    damped = moments.astype(np.float64) + 0.01 * np.diagonal(moments).mean() * np.eye(24)
    for place, i in enumerate(order):
        later = order[place + 1 :]
        inside = damped[np.ix_(later, later)]
        left = damped[i, i] - damped[i, later] @ np.linalg.solve(inside, damped[later, i])
        np.testing.assert_allclose(counts[i], left, rtol=1e-4)


def test_a_grid_chosen_by_the_weighting_is_better_still() -> None:
    weight, moments = problem(64, 256, seed=2)
    lost = []
    for counts in (moments, compensation(moments).weighting):
        found = rounded(weight, moments, search_grid(weight, encoding("int4.g64"), counts))
        lost.append(output_error(weight, found.decode(), moments))
    assert lost[1] < lost[0]


def test_inputs_that_are_always_zero_change_nothing() -> None:
    weight, moments = problem(8, 64)
    dead = [3, 40]
    moments[dead] = 0
    moments[:, dead] = 0
    grid = search_grid(weight, encoding("int4.g32"))
    found = rounded(weight, moments, grid)
    assert np.array_equal(found.codes[:, dead], grid.encode(weight).codes[:, dead])
    alive = [i for i in range(64) if i not in dead]
    factor = inverse_factor(moments)
    assert np.isfinite(factor).all() and (factor[np.ix_(alive, dead)] == 0).all()


@pytest.mark.parametrize("size", [1, 127, 128, 129, 257, 600])
def test_the_factor_is_that_of_the_inverse(size: int) -> None:
    """Of whatever size: it is made in halves down to a block."""
    x = np.random.default_rng(size).normal(size=(2 * size, size)).astype(np.float32)
    moments = x.T @ x / len(x)
    factor = inverse_factor(moments).astype(np.float64)
    assert (np.tril(factor, -1) == 0).all() and (np.diagonal(factor) > 0).all()
    damped = moments + 0.01 * np.diagonal(moments).mean() * np.eye(size)
    assert np.abs(factor @ damped @ factor.T - np.eye(size)).max() < 1e-4


def test_rows_of_zeros_and_an_outlier() -> None:
    weight, moments = problem(8, 64)
    weight[2] = 0
    weight[4, 9] = 1e4
    seen = rounded(weight, moments, search_grid(weight, encoding("int4.g64"), moments)).decode()
    assert (seen[2] == 0).all()
    assert np.isfinite(seen).all()
    assert abs(seen[4, 9] / 1e4 - 1) < 0.5


@pytest.mark.parametrize(("value", "said"), [(np.nan, "not finite"), (np.inf, "not finite"), (-9e9, "positive")])
def test_moments_that_are_none_are_refused(value: float, said: str) -> None:
    weight, moments = problem(4, 32)
    moments[5, 5] = value
    with pytest.raises(ConfigError, match=said):
        rounded(weight, moments, search_grid(weight, encoding("int4.g32")))
