"""Temperature, top-k, top-p, min-p against transformers' processors and against the definition, ties included."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albireo.backends.cpu.machine import isa_levels, thread_pool
from albireo.backends.cpu.rows import Truncation, draw_tokens, kept_tokens
from more_examples import more_examples


def distribution(row: np.ndarray, **settings_: float) -> np.ndarray:
    """[V] probabilities as kept_tokens() gives them."""
    ids, weights = kept(row, **settings_)
    full = np.zeros(row.size)
    full[ids] = weights / weights.sum()
    return full


def kept(row: np.ndarray, temperature: float, **settings_: float) -> tuple[np.ndarray, np.ndarray]:
    return kept_tokens(row, Truncation(float(row.max()), temperature, **settings_))  # type: ignore[arg-type]


def drawn(row: np.ndarray, fractions: list[float], temperature: float, **settings_: float) -> list[int]:
    settings = Truncation(float(row.max()), temperature, **settings_)  # type: ignore[arg-type]
    return draw_tokens([row] * len(fractions), [settings] * len(fractions), fractions)


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


@more_examples(3)
@given(
    levels=st.lists(st.integers(-30, 0), min_size=1, max_size=200),
    repeats=st.integers(1, 20),
    top_p=st.floats(1e-9, 1.0, exclude_max=True),
    temperature=st.floats(0.01, 100.0),
)
def test_top_p_is_the_full_sort_definition(levels: list[int], repeats: int, top_p: float, temperature: float) -> None:
    """Most probable first, ties by lowest id, until the mass is there; sums in fractions, which do not round."""
    row = np.array(levels * repeats, np.float32)
    everything = [Fraction(weight) for weight in kept(row, temperature)[1].tolist()]
    target = Fraction(top_p) * sum(everything)
    expected, mass = set(), Fraction(0)
    for i in sorted(range(row.size), key=lambda i: (-row[i], i)):
        if abs(mass - target) < Fraction(1e-12) * target:
            return  # rounding decides
        if mass >= target:
            break
        expected.add(i)
        mass += everything[i]
    ids, weights = kept(row, temperature, top_p=top_p)
    assert ids.tolist() == sorted(expected)
    assert weights.tolist() == [everything[i] for i in sorted(expected)]


def test_min_p_boundary_is_decided_by_the_weights() -> None:
    row = np.array([5.0, 4.0, 3.0, -2.0], np.float32)
    weights = kept(row, 0.37)[1]
    for i, weight in enumerate(weights.tolist()):
        assert kept(row, 0.37, min_p=weight)[0].tolist() == list(range(i + 1))
        if i:
            above = float(np.nextafter(weight, 1.0))
            assert kept(row, 0.37, min_p=above)[0].tolist() == list(range(i))


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


SETTINGS: list[dict[str, float]] = [
    {},
    {"top_k": 50},
    {"top_p": 0.9},
    {"min_p": 0.01},
    {"top_k": 200, "top_p": 0.7, "min_p": 1e-3},
]


def test_bits_do_not_depend_on_memory_layout() -> None:
    row = random_rows(1, 10_007, seed=5)[0]
    for asked in SETTINGS:
        expected = kept(row, 0.7, **asked)
        for offset in range(1, 9):
            moved = np.empty(row.size + offset, np.float32)[offset:]
            moved[:] = row
            got = kept(moved, 0.7, **asked)
            assert got[1].tobytes() == expected[1].tobytes() and np.array_equal(got[0], expected[0])


@pytest.mark.parametrize("size", [1, 2, 63, 64, 65, 128, 5000])
@pytest.mark.parametrize("asked", SETTINGS, ids=str)
def test_draws_are_the_inverse_cdf(size: int, asked: dict[str, float]) -> None:
    rng = np.random.default_rng(size)
    for row in random_rows(6, size, seed=size):
        row[rng.random(size) < 0.3] = -np.inf
        row[: 130 if size > 130 else 0] = -np.inf  # whole chunks of nothing
        row[rng.integers(size)] = 1.0
        ids, weights = kept(row, 0.9, **asked)
        ends = list(itertools.accumulate(weights.tolist()))
        fractions = [0.0, 0.5, 2.0**-53, *rng.random(40).tolist(), 1 - 2.0**-53]
        for fraction, token in zip(fractions, drawn(row, fractions, 0.9, **asked), strict=True):
            place = ids.tolist().index(token)
            assert weights[place] > 0
            begin, end = (ends[place - 1] if place else 0.0), ends[place]
            assert begin - 1e-12 * ends[-1] <= fraction * ends[-1] <= end + 1e-12 * ends[-1]
        assert drawn(row, [0.0], 0.9, **asked) == [int(ids[np.flatnonzero(weights)[0]])]


def test_threads_change_no_token() -> None:
    rows = random_rows(24, 3001, seed=8)
    settings = [Truncation(float(row.max()), 0.8, **SETTINGS[i % 5]) for i, row in enumerate(rows)]  # type: ignore[arg-type]
    fractions = np.random.default_rng(2).random(24).tolist()
    assert draw_tokens(rows, settings, fractions, thread_pool(3)) == draw_tokens(rows, settings, fractions)


def test_the_best_alone_give_the_token_that_all_give() -> None:
    """Of a row's best, ids ascending, as of the whole row with top_k: the same list, so the same bits."""
    for row in random_rows(20, 20_000, seed=4):
        best = np.sort(np.argsort(-row, kind="stable")[:50])
        fractions = np.random.default_rng(0).random(50).tolist()
        for rest in ({}, {"top_p": 0.9}, {"min_p": 0.05, "top_p": 0.7}):
            there = drawn(row, fractions, 0.7, top_k=50, **rest)
            assert [int(best[place]) for place in drawn(row[best], fractions, 0.7, **rest)] == there


def test_the_cap_of_levels_is_also_that_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Portable code rounds twice where a fused multiply-add does once: the same weights but for their last bits."""
    if len(isa_levels()) == 1:
        pytest.skip("this machine has one level")
    row = random_rows(2, 2000, seed=11)[1]
    by_level = {}
    for level in (isa_levels()[0], "scalar"):
        monkeypatch.setenv("ALBIREO_ISA_MAX", level)
        ids, weights = kept(row, 0.9)
        by_level[level] = weights
        assert ids.tolist() == list(range(row.size))
        assert drawn(row, [0.0, 0.25, 0.5, 0.999], 0.9, top_p=0.9) == drawn(
            row, [0.0, 0.25, 0.5, 0.999], 0.9, top_p=0.9
        )
    best, plain = by_level.values()
    np.testing.assert_allclose(best, plain, rtol=1e-13)
    assert not np.array_equal(best, plain)
