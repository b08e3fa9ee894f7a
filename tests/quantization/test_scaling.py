"""Scales of inputs: the published formulas, and a search that takes nothing where nothing is better."""

from __future__ import annotations

import numpy as np

from albireo.encodings import encoding
from albireo.quantization.methods.scaling import (
    awq_candidates,
    awq_scales,
    search_scales,
    smoothquant_candidates,
    smoothquant_scales,
)
from albireo.quantization.methods.search import search_grid


def rounder(name: str):
    return lambda weight: search_grid(weight, encoding(name), shrinks=(1.0,)).encode(weight).decode()


def same(scales: np.ndarray) -> np.ndarray:
    return scales


def up_to_a_factor(scales: np.ndarray) -> np.ndarray:
    return scales / scales[0]


def test_the_published_formulas() -> None:
    rng = np.random.default_rng(0)
    x, w = np.exp(rng.normal(size=20)).astype(np.float32), np.exp(rng.normal(size=20)).astype(np.float32)
    smooth = smoothquant_scales(x, w, 0.3)
    np.testing.assert_allclose(up_to_a_factor(smooth), up_to_a_factor(x**0.3 / w**0.7), rtol=1e-5)
    np.testing.assert_allclose(up_to_a_factor(awq_scales(x, 0.7)), up_to_a_factor(x**0.7), rtol=1e-5)
    np.testing.assert_allclose(smooth.max() * smooth.min(), 1, rtol=1e-5)


def test_channels_that_are_never_used_get_no_wild_scales() -> None:
    x = np.zeros(8, np.float32)
    x[:4] = 1
    for scales in (awq_scales(x, 1.0), smoothquant_scales(x, np.ones(8, np.float32), 0.9), awq_scales(0 * x, 0.5)):
        assert np.isfinite(scales).all() and scales.min() >= 1e-4 and scales.max() <= 1e4


def outliers() -> tuple[np.ndarray, list[np.ndarray]]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(64, 128)).astype(np.float32)
    x[:, [5, 70]] *= 60
    return x, [rng.normal(size=(n, 128)).astype(np.float32) for n in (32, 48)]


def test_smoothquant_takes_outliers_out_of_inputs_that_are_rounded() -> None:
    x, weights = outliers()
    candidates = smoothquant_candidates(np.abs(x).max(axis=0), weights)
    found = search_scales(x, weights, candidates, rounder("int8"), True, same)
    assert found.alpha is not None and found.error < 0.2 * found.plain_error
    assert found.scales[5] > 3 * np.median(found.scales)


def test_awq_gives_large_inputs_finer_steps() -> None:
    x, weights = outliers()
    candidates = awq_candidates(np.abs(x).mean(axis=0))
    found = search_scales(x, weights, candidates, rounder("int4.g64"), False, same)
    assert found.alpha is not None and found.error < 0.7 * found.plain_error


def test_nothing_is_taken_where_nothing_is_better() -> None:
    x, weights = outliers()
    wild = iter([(0.5, np.full(128, 1.0, np.float32)), (0.9, np.geomspace(1e-4, 1e4, 128).astype(np.float32))])
    found = search_scales(x, weights, wild, rounder("int8"), False, same)
    assert found.alpha is None and (found.scales == 1).all() and found.error == found.plain_error
