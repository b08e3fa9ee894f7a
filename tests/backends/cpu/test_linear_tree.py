"""linear with chunks at every level: its bits are those of the chunks computed alone, added as a tree."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.linear import tree_sum
from backends.cpu.harness import Guarded, assert_close, assert_same_bits, normal, panels, variants
from backends.cpu.test_linear import exact_product, linear
from in_turn import in_turn

VARIANTS = variants("linear")
#: One row, tall tiles, more than a tall tile, more than a chunk of rows.
ROWS = [1, 2, 13, 28, 29, 49]


@in_turn(("chunks", [2, 4, 8]), ("dtype, level", VARIANTS))
def test_bits_are_those_of_the_chunks(dtype: str, level: str, chunks: int) -> None:
    """K of a chunk around vectors; once beyond a block of 1,024 steps."""
    shapes = [(m, 70, chunks * 6) for m in ROWS] + [(2, 64, chunks * 32), (3, 65, chunks * 34), (49, 64, chunks * 2)]
    if level != "scalar":
        shapes += [(1, 64, chunks * 2052), (29, 64, chunks * 2052)]
    for m, n, k in shapes:
        x, w = normal(m, k, dtype=dtype), normal(n, k, seed=1, dtype=dtype)
        bias, residual = normal(n, seed=2), normal(m, n, seed=3)
        cut = [np.split(a, chunks, axis=1) for a in (x, w)]
        alone = [linear(a, panels(b, dtype), n, dtype, level).values for a, b in zip(*cut, strict=True)]
        weight = panels(w, dtype)
        for threads in (1, 2):
            whole = linear(x, weight, n, dtype, level, chunks=chunks, threads=threads)
            assert_same_bits(whole.values, tree_sum(alone), f"{m} x {n} x {k}, {threads} threads")
        more = linear(x, weight, n, dtype, level, chunks=chunks, bias=Guarded(bias), residual=Guarded(residual))
        assert_same_bits(more.values, tree_sum(alone) + bias + residual, f"{m} x {n} x {k} with bias and residual")


@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_the_product_is_right(dtype: str, level: str) -> None:
    x, w = normal(5, 48, dtype=dtype), normal(70, 48, seed=1, dtype=dtype)
    exact, error = exact_product(x, w)
    assert_close(linear(x, panels(w, dtype), 70, dtype, level, chunks=8).values, exact, error, "float32")


@pytest.mark.parametrize("x_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_activations_of_another_type_are_copied_once(dtype: str, level: str, x_dtype: str) -> None:
    """A copy holds all of K, whichever chunk is at hand; of some rows and of many."""
    for m in (2, 30):
        x, w = normal(m, 48, dtype="bfloat16"), normal(70, 48, seed=1, dtype=dtype)
        got = linear(x, panels(w, dtype), 70, dtype, level, x_dtype=x_dtype, chunks=4)
        wanted = linear(x, panels(w, dtype), 70, dtype, level, x_dtype="bfloat16", chunks=4)
        assert_same_bits(got.values, wanted.values, f"{m} rows")


@pytest.mark.parametrize(("chunks", "k"), [(3, 12), (16, 64), (0, 8), (8, 8), (2, 6)])
def test_chunks_that_do_not_cut_k(chunks: int, k: int) -> None:
    dtype, level = VARIANTS[0]
    with pytest.raises(ValueError, match="chunks must be 1, 2, 4 or 8 and cut k into whole pairs"):
        linear(normal(1, k), panels(normal(64, k), dtype), 64, dtype, level, chunks=chunks)
