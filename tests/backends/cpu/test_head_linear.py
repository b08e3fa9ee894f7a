"""head_linear and join_heads at every level and type: against numpy, and bit by bit against themselves."""

from __future__ import annotations

import numpy as np
import pytest

from albireo.backends.reference.rounding import round_to
from backends.cpu.harness import (
    Array,
    Call,
    Guarded,
    assert_close,
    assert_same_bits,
    chain_error,
    encode,
    normal,
    panels,
    rows_step,
    run,
    variants,
)

VARIANTS = variants("head_linear")
#: Rows; heads; outputs and inputs of one: around panels, vectors, pairs, and chunks of rows.
SHAPES = [
    (1, 1, 1, 1),
    (3, 4, 10, 12),
    (5, 3, 64, 7),
    (49, 2, 65, 16),
    (2, 16, 24, 33),
    (97, 5, 130, 18),
    (7, 2, 512, 128),
]


def head_linear(x: Array, w: Array, dtype: str, level: str, out_dtype: str = "float32", threads: int = 1) -> Array:
    """x: [rows, heads, k]; w: [heads, n, k]. Returns: [rows, heads, n] as stored."""
    rows, heads, k = x.shape
    n = w.shape[1]
    padded = np.zeros((heads, -(-n // 64) * 64, k), np.float32)
    padded[:, :n] = w
    out = Guarded.poisoned((rows, heads * n), out_dtype)
    args = {"x": Guarded(x.reshape(rows, -1), dtype), "weight": panels(padded.reshape(-1, k), dtype), "out": out}
    args |= {"n": n, "k": k, "num_heads": heads, "w_dtype": dtype, "x_dtype": dtype, "out_dtype": out_dtype}
    run([Call("head_linear", level, dtype, args)], rows_step(rows), threads)
    return out.stored.reshape(rows, heads, n)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "level"), VARIANTS)
def test_each_head_has_a_matrix_of_its_own(dtype: str, level: str, shape: tuple[int, int, int, int]) -> None:
    rows, heads, n, k = shape
    x, w = normal(rows, heads, k, dtype=dtype), normal(heads, n, k, seed=1, dtype=dtype)
    wide = x.astype(np.float64), w.astype(np.float64)
    exact = np.einsum("thk,hnk->thn", *wide)
    error = chain_error(k, np.einsum("thk,hnk->thn", *map(np.abs, wide)))
    whole = head_linear(x, w, dtype, level)
    assert_close(whole, exact, error, "float32")
    for threads in (2, 3):
        assert_same_bits(head_linear(x, w, dtype, level, threads=threads), whole, f"{threads} threads")
    for row in {0, rows // 2, rows - 1}:
        assert_same_bits(head_linear(x[row : row + 1], w, dtype, level), whole[row : row + 1], f"row {row} alone")
    for head in range(min(heads, 3)):
        alone = head_linear(x[:, head : head + 1], w[head : head + 1], dtype, level)
        assert_same_bits(alone, whole[:, head : head + 1], f"head {head} alone")
    rounded = head_linear(x, w, dtype, level, out_dtype=dtype)
    assert_same_bits(rounded, encode(round_to(whole, dtype), dtype), "rounded as it is written")


@pytest.mark.parametrize(("dtype", "level"), variants("join_heads"))
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 3, 7, 2), (9, 16, 512, 64)])
def test_parts_of_heads_lie_side_by_side(shape: tuple[int, int, int, int], dtype: str, level: str) -> None:
    rows, heads, k, n = shape
    x, y = normal(rows, heads, k), normal(rows, heads, n, seed=1)
    out = Guarded.poisoned((rows, heads * (k + n)), dtype)
    args = {"x": Guarded(x.reshape(rows, -1)), "y": Guarded(y.reshape(rows, -1)), "out": out}
    args |= {"k": k, "n": n, "num_heads": heads, "out_dtype": dtype}
    run([Call("join_heads", level, dtype, args)], rows_step(rows), 2)
    wanted = round_to(np.concatenate([x, y], axis=2).reshape(rows, -1), dtype)
    assert_same_bits(out.stored, encode(wanted, dtype), "joined")
