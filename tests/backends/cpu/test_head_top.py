"""head_top at every level: the arg max of what linear gives, to the bit, with ties and with what is no number."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.graph.program_spec import KINDS
from backends.cpu.harness import (
    F32,
    Array,
    Call,
    Guarded,
    assert_close,
    assert_same_bits,
    chain_error,
    level_of,
    normal,
    panels,
    rows_step,
    run,
    variants,
)

VARIANTS = variants("head_top")
VOCABS = [1, 2, 63, 64, 65, 128, 200]


def head_top(x: F32, w: F32, dtype: str, level: str, threads: int = 1) -> tuple[Array, Array]:
    args = {"x": Guarded(x, dtype), "weight": panels(w, dtype), "n": len(w), "k": x.shape[1]}
    args |= {"x_dtype": dtype, "w_dtype": dtype, "rows": "G"}
    ids, values = run([Call("head_top", level, dtype, args)], rows_step(len(x), top_rows=range(len(x))), threads)
    assert (ids[:, 1:] == -1).all() and (values[:, 1:] == -np.inf).all()
    return ids[:, 0], values[:, 0]


def best_few(x: F32, w: F32, counts: list[int], dtype: str, level: str, threads: int = 1) -> tuple[Array, Array]:
    args = {"x": Guarded(x, dtype), "weight": panels(w, dtype), "n": len(w), "k": x.shape[1]}
    args |= {"x_dtype": dtype, "w_dtype": dtype, "rows": "G"}
    step = rows_step(len(x), top_rows=range(len(x)), top_counts=np.array(counts, np.int32))
    return run([Call("head_top", level, dtype, args)], step, threads)


def logits(x: F32, w: F32, dtype: str, level: str) -> F32:
    out = Guarded.poisoned((len(x), len(w)))
    args = {"x": Guarded(x, dtype), "weight": panels(w, dtype), "out": out, "n": len(w), "k": x.shape[1]}
    run([Call("linear", level, dtype, args | {"x_dtype": dtype, "w_dtype": dtype})], rows_step(len(x)))
    return out.values


@pytest.mark.parametrize("vocab", VOCABS)
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_arg_max_of_the_logits(dtype: str, level: str, vocab: int) -> None:
    rows, k = (5 if level == "scalar" else 49), 35
    x, w = normal(rows, k, dtype=dtype), normal(vocab, k, seed=1, dtype=dtype)
    ids, values = head_top(x, w, dtype, level)
    ours = logits(x, w, dtype, level)
    assert np.array_equal(ids, ours.argmax(axis=1))
    assert_same_bits(values, ours.max(axis=1), "value")
    exact = x.astype(np.float64) @ w.astype(np.float64).T
    error = chain_error(k, np.abs(x.astype(np.float64)) @ np.abs(w.astype(np.float64)).T)
    assert_close(values, exact.max(axis=1), error.max(axis=1), "float32")


@pytest.mark.parametrize("threads", [2, 3])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_threads_and_batches(dtype: str, level: str, threads: int) -> None:
    rows = 14 if level == "scalar" else 484
    x, w = normal(rows, 12, dtype=dtype), normal(193, 12, seed=1, dtype=dtype)
    ids, values = head_top(x, w, dtype, level)
    again = head_top(x, w, dtype, level, threads)
    assert_same_bits(again[0], ids, "ids")
    assert_same_bits(again[1], values, "values")
    for row in (0, 7, rows - 1):
        alone = head_top(x[row : row + 1], w, dtype, level)
        assert (alone[0][0], alone[1][0]) == (ids[row], values[row])


@pytest.mark.parametrize("first", [0, 1, 37, 63, 64, 100, 130])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_of_equals_the_lowest_id_wins(dtype: str, level: str, first: int) -> None:
    """Equal columns in one panel, in others, and in the last, short one; also when all are negative."""
    w = -np.abs(normal(140, 8, dtype=dtype)) - np.float32(1)
    best = np.array([-0.5, -0.25, -0.5, -1, -0.125, -0.5, -0.25, -0.5], np.float32)
    w[[i for i in (0, 1, 37, 63, 64, 100, 130, 139) if i >= first]] = best
    x = np.ones((3, 8), np.float32)
    ids, values = head_top(x, w, dtype, level)
    assert ids.tolist() == [first] * 3
    assert values.tolist() == [float(best.sum())] * 3


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_zeros_of_either_sign_are_equal(dtype: str, level: str) -> None:
    """A chain of products of -0 may end in either; the lowest id wins all the same."""
    w = np.array([-1, -0.0, 0, -0.0], np.float32)[:, None]
    ids, values = head_top(np.ones((1, 1), np.float32), w, dtype, level)
    assert (ids.tolist(), values.tolist()) == ([1], [0.0])


@pytest.mark.parametrize("vocab", [64, 128, 150])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_what_is_no_number_is_seen(dtype: str, level: str, vocab: int) -> None:
    """One NaN among the logits is the value; so is an infinity, and its id is right; -inf alone too."""
    w = normal(vocab, 3, dtype=dtype)
    x = np.ones((2, 3), np.float32)
    for bad in (0, 31, 63, vocab - 1):
        damaged = w.copy()
        for nan in (np.nan, -np.nan):  # that of 0 * inf has a sign on x86
            damaged[bad, 1] = nan
            ids, values = head_top(x, damaged, dtype, level)
            assert np.isnan(values).all()
            assert ids.tolist() == [bad] * 2
        damaged[bad, 1] = np.inf
        ids, values = head_top(x, damaged, dtype, level)
        assert (ids.tolist(), values.tolist()) == ([bad] * 2, [np.inf] * 2)
        damaged[bad, 1] = -np.inf
        wanted = logits(x, damaged, dtype, level)
        ids, values = head_top(x, damaged, dtype, level)
        assert np.array_equal(ids, wanted.argmax(axis=1))
        assert_same_bits(values, wanted.max(axis=1), "value")
    ids, values = head_top(x, np.full_like(w, -np.inf), dtype, level)
    assert (ids.tolist(), values.tolist()) == ([0] * 2, [-np.inf] * 2)


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_a_damaged_row_does_not_touch_the_others(dtype: str, level: str) -> None:
    x, w = normal(7, 9, dtype=dtype), normal(130, 9, seed=1, dtype=dtype)
    ids, values = head_top(x, w, dtype, level)
    x[3, 8] = np.nan
    bad_ids, bad_values = head_top(x, w, dtype, level)
    rest = [0, 1, 2, 4, 5, 6]
    assert np.isnan(bad_values[3])
    assert_same_bits(bad_ids[rest], ids[rest], "ids")
    assert_same_bits(bad_values[rest], values[rest], "values")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("vocab", [1, 40, 65, 200, 1000])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_the_best_few_are_those_of_the_sorted_logits(dtype: str, level: str, vocab: int, threads: int) -> None:
    """Rows ask for different numbers; equal logits (every tenth column) come in order of id."""
    counts = [65, 1, 2, 51, 64]
    x, w = normal(5, 12, dtype=dtype), normal(vocab, 12, seed=1, dtype=dtype)
    w[::10] = w[0]
    ids, values = best_few(x, w, counts, dtype, level, threads)
    ours = logits(x, w, dtype, level)
    for row, count in enumerate(counts):
        wanted = np.argsort(-ours[row], kind="stable")[:count]
        assert ids[row, : len(wanted)].tolist() == wanted.tolist()
        assert_same_bits(values[row, : len(wanted)], ours[row, wanted], "values")
        assert (ids[row, len(wanted) :] == -1).all() and (values[row, len(wanted) :] == -np.inf).all()


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_rising_falling_and_equal_logits(dtype: str, level: str) -> None:
    """Rising: every column enters the list. Falling: none after the first. Equal: the lowest ids."""
    scale = np.linspace(-4, 4, 700, dtype=np.float32)
    for column in (scale, scale[::-1], np.zeros_like(scale)):
        w = np.ascontiguousarray(column[:, None])
        ids, _ = best_few(np.ones((2, 1), np.float32), w, [65, 1], dtype, level)
        ours = logits(np.ones((2, 1), np.float32), w, dtype, level)[0]
        assert ids[0].tolist() == np.argsort(-ours, kind="stable")[:65].tolist() and ids[1, 0] == ids[0, 0]
    x = np.ones((1, 1), np.float32)
    ids, values = best_few(x, np.where(np.arange(300)[:, None] == 250, np.nan, 1).astype(np.float32), [9], dtype, level)
    assert ids[0, :9].tolist() == [250, *range(8)] and np.isnan(values[0, 0])


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_capped_logits_are_the_best_of_all_capped(dtype: str, level: str) -> None:
    """The bits of a linear and a cap behind it; what the cap makes equal goes to the lowest id."""
    x, w = 9 * normal(3, 35, dtype=dtype), 9 * normal(200, 35, seed=1, dtype=dtype)
    found = Guarded.poisoned((3, 200))
    capped = {"x": Guarded(logits(x, w, dtype, level)), "out": found, "k": 200, "act": KINDS.index("softcap")}
    own = level_of("elementwise", level)  # the same vectors
    run([Call("elementwise", own, "float32", capped | {"softcap": 2.5, "out_dtype": "float32"})], rows_step(3))
    args = {"x": Guarded(x, dtype), "weight": panels(w, dtype), "n": 200, "k": 35, "softcap": 2.5}
    args |= {"x_dtype": dtype, "w_dtype": dtype, "rows": "G"}
    step = rows_step(3, top_rows=range(3), top_counts=np.full(3, 4, np.int32))
    ids, values = run([Call("head_top", level, dtype, args)], step, 2)
    order = np.argsort(-found.values, axis=1, kind="stable")[:, :4]
    assert np.array_equal(ids[:, :4], order) and (ids[:, 4:] == -1).all()
    assert_same_bits(values[:, :4], np.take_along_axis(found.values, order, axis=1), "values")
    assert len(np.unique(values[0, :4])) < 4, "nothing was made equal"
