"""all_reduce at every level: sums in the order that is written down, bit by bit."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.linear import tree_sum
from backends.cpu.harness import F32, Call, Guarded, assert_same_bits, normal, rows_step, run, variants

LEVELS = [level for dtype, level in variants("all_reduce") if dtype == "float32"]


def reduced(parts: list[F32], level: str, threads: int = 1, **roles: Guarded) -> Guarded:
    given = [Guarded(part) for part in parts]
    m, n = parts[0].shape
    out = roles.pop("in_place", None) or Guarded.poisoned((m, n))
    args = {"x": given[0], "out": out, "n": n, "parts": [g.address for g in given], **roles}
    run([Call("all_reduce", level, "float32", args)], rows_step(m), threads)
    for each in given:
        each.check_unchanged()
    return out


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("level", LEVELS)
def test_the_order_of_sums(level: str, ranks: int) -> None:
    for m, n in [(1, 1), (1, 513), (3, 96), (7, 1100)]:
        parts = [normal(m, n, seed=seed) * np.float32(10.0**seed) for seed in range(ranks)]
        bias, residual = normal(n, seed=20), normal(m, n, seed=21)
        wanted = tree_sum(parts)
        assert_same_bits(reduced(parts, level).values, wanted, f"{m} x {n}")
        wanted = wanted + bias + residual
        for threads in (1, 3):
            apart = reduced(parts, level, threads, bias=Guarded(bias), residual=Guarded(residual))
            assert_same_bits(apart.values, wanted, f"{m} x {n}, {threads} threads")
        out = Guarded(residual)
        reduced(parts, level, bias=Guarded(bias), residual=out, in_place=out)
        assert_same_bits(out.values, wanted, "in place")


@pytest.mark.parametrize("count", [1, 3, 16])
def test_parts_that_make_no_tree(count: int) -> None:
    with pytest.raises(ValueError, match="parts of 2, 4 or 8 ranks"):
        reduced([normal(1, 4)] * count, LEVELS[0])
