"""Rules of tolerance of residual streams side by side: float32 is within, and what a wrong kernel would give is not."""

from __future__ import annotations

import numpy as np

from backends.cpu.harness import normal
from verify.test_expert_bounds import TOKENS, is_right, run

WIDTH, PARTS = 200, 3


def test_add_parts() -> None:
    x, coefs = normal(TOKENS, PARTS * WIDTH), normal(TOKENS, PARTS * PARTS, seed=1)
    node, found = run(
        lambda b, v: (b.add_parts(v["x"], v["x"], PARTS, v["coefs"], 0.0),), "add_parts", x=(x, "T"), coefs=(coefs, "T")
    )
    rows, matrix = x.reshape(TOKENS, PARTS, WIDTH), coefs.reshape(TOKENS, PARTS, PARTS)
    right = rows + np.einsum("tji,tie->tje", matrix, rows)
    assert is_right(node, found, right.reshape(x.shape))
    wrong = rows + np.einsum("tij,tie->tje", matrix, rows)
    assert not is_right(node, found, wrong.reshape(x.shape)), "coefficients in another order"
    assert not is_right(node, found, (right - rows).reshape(x.shape)), "nothing is kept"


def test_what_streams_are_told_of_the_first() -> None:
    x, y = normal(TOKENS, PARTS * WIDTH), normal(TOKENS, WIDTH, seed=1)
    node, found = run(
        lambda b, v: (b.add_parts(v["x"], v["y"], PARTS, None, 1.0, 1),), "add_parts", x=(x, "T"), y=(y, "T")
    )
    right = x + np.concatenate([np.zeros_like(y), y, y], axis=1)
    assert is_right(node, found, right)
    assert not is_right(node, found, x + np.concatenate([y, y, y], axis=1)), "the first one, too"


def test_rows_as_a_whole() -> None:
    x, y = normal(TOKENS, WIDTH), 3 * normal(TOKENS, WIDTH, seed=1)
    node, found = run(lambda b, v: (b.match_length(v["x"], v["y"], 1e-5),), "row_map", x=(x, "T"), y=(y, "T"))
    by = np.sqrt((y**2).mean(axis=1, keepdims=True)) / np.sqrt((x**2).mean(axis=1, keepdims=True))
    assert is_right(node, found, x * by)
    assert not is_right(node, found, x * by * np.float32(1 + 1e-5))
    assert not is_right(node, found, x / by), "the other row's length"
    node, found = run(lambda b, v: (b.cut(v["x"], 0.5),), "row_map", x=(x, "T"))
    mean, deviation = x.mean(axis=1, keepdims=True), x.std(axis=1, keepdims=True)
    assert is_right(node, found, np.maximum(x - (mean + np.float32(0.5) * deviation), 0))
    of_sample = x.std(axis=1, keepdims=True, ddof=1)
    assert not is_right(node, found, np.maximum(x - (mean + np.float32(0.5) * of_sample), 0)), "one number less"
    assert not is_right(node, found, np.maximum(x - np.float32(0.5) * deviation, 0)), "no mean"
