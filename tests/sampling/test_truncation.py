"""Temperature, top-k, top-p, min-p against transformers' processors and against the definition, ties included."""

from __future__ import annotations

import bisect
import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.sampling.truncation import _nucleus, draw, truncated_weights
from more_examples import more_examples


def distribution(row: np.ndarray, **settings_: float) -> np.ndarray:
    """[V] probabilities as truncated_weights gives them."""
    ids, weights = truncated_weights(row, float(row.max()), **settings_)  # type: ignore[arg-type]
    full = np.zeros(row.size)
    full[slice(None) if ids is None else ids] = weights / weights.sum()
    return full


def random_rows(num: int, vocab: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scales = itertools.cycle([0.3, 2.0, 8.0])
    return [
        (rng.standard_normal(vocab) * scale).astype(np.float32) for _, scale in zip(range(num), scales, strict=False)
    ]


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0.7},
        {"temperature": 1.0, "top_k": 1},
        {"temperature": 1.3, "top_k": 40},
        {"temperature": 1.0, "top_p": 0.9},
        {"temperature": 0.8, "top_p": 0.05},
        {"temperature": 2.0, "top_p": 0.999},
        {"temperature": 1.0, "min_p": 0.1},
        {"temperature": 1.5, "min_p": 1.0},
        {"temperature": 0.6, "top_k": 20, "top_p": 0.95},
        {"temperature": 0.9, "min_p": 0.02, "top_k": 30, "top_p": 0.8},
        {"temperature": 1.0, "top_k": 10**9, "top_p": 0.5, "min_p": 1e-4},
    ],
    ids=str,
)
def test_equals_transformers(asked: dict[str, float]) -> None:
    torch = pytest.importorskip("torch")
    processors = pytest.importorskip("transformers.generation.logits_process")
    chain = [processors.TemperatureLogitsWarper(asked["temperature"])]
    if "min_p" in asked:
        chain.append(processors.MinPLogitsWarper(asked["min_p"]))
    if "top_k" in asked:
        chain.append(processors.TopKLogitsWarper(asked["top_k"]))
    if "top_p" in asked:
        chain.append(processors.TopPLogitsWarper(asked["top_p"]))
    for row in random_rows(60, 500, seed=1) + random_rows(6, 20_000, seed=2):
        scores = torch.from_numpy(row.astype(np.float64))[None]
        for processor in chain:
            scores = processor(None, scores)
        theirs = torch.softmax(scores, dim=-1)[0].numpy()
        ours = distribution(row, **asked)
        assert np.array_equal(ours > 0, theirs > 0)
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=0)


def test_top_k_keeps_ties_with_the_kth_as_transformers_and_vllm_do() -> None:
    row = np.array([1, 3, 2, 2, 0, 2], np.float32)
    assert np.flatnonzero(distribution(row, temperature=1.0, top_k=2)).tolist() == [1, 2, 3, 5]


def test_order_min_p_then_top_k_then_top_p() -> None:
    row = np.log(np.array([0.1, 0.4, 0.2, 0.3])).astype(np.float32)
    # Alone, top_p=0.5 needs two tokens; after top_k=2 or min_p=0.6 the best one holds 4/7 of what is left.
    assert np.flatnonzero(distribution(row, temperature=1.0, top_p=0.5)).tolist() == [1, 3]
    assert np.flatnonzero(distribution(row, temperature=1.0, top_p=0.5, top_k=2)).tolist() == [1]
    assert np.flatnonzero(distribution(row, temperature=1.0, top_p=0.5, min_p=0.6)).tolist() == [1]
    # Temperature comes first: at 2 the ratio 0.3 / 0.4 becomes its square root, 0.87.
    assert np.flatnonzero(distribution(row, temperature=1.0, min_p=0.8)).tolist() == [1]
    assert np.flatnonzero(distribution(row, temperature=2.0, min_p=0.8)).tolist() == [1, 3]


def full_sort_nucleus(weights: list[Fraction], top_p: Fraction) -> set[int]:
    """The definition, exactly: most probable first, ties by lowest id, until the mass is there."""
    ranked = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    kept, mass, target = set(), Fraction(0), top_p * sum(weights)
    for i in ranked:
        kept.add(i)
        mass += weights[i]
        if mass >= target:
            break
    return kept


@more_examples(3)
@given(
    exponents=st.lists(st.integers(0, 40), min_size=1, max_size=60),
    repeats=st.integers(1, 40),
    eighths=st.integers(1, 1023),
)
def test_nucleus_is_the_full_sort_definition(exponents: list[int], repeats: int, eighths: int) -> None:
    # Powers of two and a dyadic top_p: every sum is exact in float64, so the definition leaves no rounding to hide in.
    exponents = exponents * repeats
    top_p = eighths / 1024
    weights = 2.0 ** (min(exponents) - np.array(exponents, np.float64))
    exact = full_sort_nucleus([Fraction(w) for w in weights.tolist()], Fraction(top_p))
    assert set(np.flatnonzero(_nucleus(weights, top_p)).tolist()) == exact


@more_examples(3)
@given(
    levels=st.lists(st.integers(-30, 0), min_size=1, max_size=200),
    top_p=st.floats(1e-9, 1.0, exclude_max=True),
    temperature=st.floats(0.01, 100.0),
)
def test_top_p_through_the_front_has_no_rounding_of_its_own(
    levels: list[int], top_p: float, temperature: float
) -> None:
    row = np.array(levels, np.float32)
    ids, weights = truncated_weights(row, float(row.max()), temperature, top_p=top_p)
    everything = truncated_weights(row, float(row.max()), temperature)[1].tolist()
    target = top_p * float(np.sum(everything))
    expected, mass = set(), 0.0
    for i in sorted(range(len(everything)), key=lambda i: (-everything[i], i)):
        if expected and mass >= target:
            break
        expected.add(i)
        mass += everything[i]
    assert ids is not None and ids.tolist() == sorted(expected)
    assert weights.tolist() == [everything[i] for i in sorted(expected)]


def test_min_p_boundary_is_decided_by_the_weights() -> None:
    row = np.array([5.0, 4.0, 3.0, -2.0], np.float32)
    weights = truncated_weights(row, 5.0, 0.37)[1]
    for i, weight in enumerate(weights.tolist()):
        ids, _ = truncated_weights(row, 5.0, 0.37, min_p=weight)
        assert ids is not None and ids.tolist() == list(range(i + 1))
        if i:
            above = float(np.nextafter(weight, 1.0))
            ids, _ = truncated_weights(row, 5.0, 0.37, min_p=above)
            assert ids is not None and ids.tolist() == list(range(i))


@pytest.mark.parametrize("asked", [{"top_k": 3}, {"top_p": 0.999999}, {"min_p": 1e-30}, {}], ids=str)
def test_masked_tokens_never_come_back(asked: dict[str, float]) -> None:
    row = np.array([-np.inf, 0.0, -np.inf, -1.0, -np.inf], np.float32)
    assert np.flatnonzero(distribution(row, temperature=1.0, **asked)).tolist() == [1, 3]


@pytest.mark.parametrize("temperature", [1e-5, 1e-3, 1e6, 1e300])
def test_extreme_temperatures(temperature: float) -> None:
    row = np.array([3e38, -3e38, 0.0, -np.inf], np.float32)
    ours = distribution(row, temperature=temperature, min_p=1e-5)
    assert ours.sum() == pytest.approx(1.0) and ours[3] == 0.0
    assert (ours > 0).tolist() == ([True] * 3 + [False] if temperature > 1e38 else [True] + [False] * 3)


def test_bits_do_not_depend_on_memory_layout() -> None:
    row = random_rows(1, 10_007, seed=5)[0]
    for asked in ({}, {"top_k": 50}, {"top_p": 0.9}, {"min_p": 0.01}, {"top_k": 200, "top_p": 0.7, "min_p": 1e-3}):
        expected = truncated_weights(row, float(row.max()), 0.7, **asked)  # type: ignore[arg-type]
        for offset in range(1, 9):
            moved = np.empty(row.size + offset, np.float32)[offset:]
            moved[:] = row
            got = truncated_weights(moved, float(row.max()), 0.7, **asked)  # type: ignore[arg-type]
            assert got[1].tobytes() == expected[1].tobytes()
            assert (got[0] is None and expected[0] is None) or np.array_equal(got[0], expected[0])  # type: ignore[arg-type]


@more_examples(3)
@given(
    weights=st.lists(st.integers(0, 1000), min_size=1, max_size=80).filter(any),
    repeats=st.integers(1, 30),
    numerator=st.integers(0, 2**16 - 1),
)
def test_draw_is_the_inverse_cdf(weights: list[int], repeats: int, numerator: int) -> None:
    # Whole weights and a dyadic fraction: sums and product are exact.
    weights = weights * repeats
    ends = list(itertools.accumulate(weights))
    expected = bisect.bisect_right(ends, Fraction(numerator, 2**16) * ends[-1])
    assert draw(np.array(weights, np.float64), numerator / 2**16) == expected


@pytest.mark.parametrize("size", [1, 2, 511, 512, 513, 1024, 5000])
def test_draw_never_leaves_the_weights(size: int) -> None:
    rng = np.random.default_rng(size)
    for _ in range(50):
        weights = rng.random(size) * (rng.random(size) < 0.5) * 10.0 ** rng.integers(-30, 1, size)
        weights[rng.integers(size)] = 1.0
        for fraction in (0.0, 2.0**-53, 0.5, 1 - 2.0**-53, *rng.random(20)):
            assert weights[draw(weights, float(fraction))] > 0
        assert draw(weights, 0.0) == np.flatnonzero(weights)[0]
