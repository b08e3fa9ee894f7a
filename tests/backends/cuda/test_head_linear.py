"""head_linear and join_heads against numpy; and the same bits of a row in any company."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.head_linear import head_linear
from albireo.backends.cuda.kernels.join_heads import join_heads
from albireo.backends.reference.rounding import round_to
from backends.cpu.harness import assert_close, assert_same_bits, chain_error, normal
from backends.cuda.tensors import numbers, room, tensor

pytestmark = pytest.mark.usefixtures("ordered_dot")


@pytest.mark.parametrize(
    ("dtype", "rows", "heads", "n", "k"),
    [
        ("bfloat16", 1, 3, 10, 12),
        ("bfloat16", 17, 2, 65, 70),
        ("float32", 5, 4, 16, 130),
        ("float16", 33, 1, 64, 64),
    ],
)
def test_each_head_has_a_matrix_of_its_own(dtype: str, rows: int, heads: int, n: int, k: int) -> None:
    x, w = normal(rows, heads, k, dtype=dtype), normal(heads, n, k, seed=1, dtype=dtype)
    padded = np.zeros((heads, -(-n // 64) * 64, k), np.float32)
    padded[:, :n] = w
    weight = torch.from_numpy(padded.reshape(-1, k)).to(getattr(torch, dtype))

    def of(rows: np.ndarray) -> np.ndarray:
        out = room(len(rows), heads * n)
        head_linear(tensor(rows.reshape(len(rows), -1), pad=3).to(weight.dtype), weight, out, heads, n)
        return numbers(out).reshape(len(rows), heads, n)

    whole = of(x)
    wide = x.astype(np.float64), w.astype(np.float64)
    error = chain_error(k, np.einsum("thk,hnk->thn", *map(np.abs, wide)))
    assert_close(whole, np.einsum("thk,hnk->thn", *wide), error, "float32")
    assert_same_bits(of(x[:1]), whole[:1], "the first row alone")
    assert_same_bits(of(x[-1:]), whole[-1:], "the last row alone")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parts_of_heads_lie_side_by_side(dtype: str) -> None:
    x, y = normal(3, 5, 20), normal(3, 5, 6, seed=1)
    out = room(3, 5 * 26, dtype)
    join_heads(tensor(x.reshape(3, -1)), tensor(y.reshape(3, -1), pad=2), out, 5)
    assert_same_bits(numbers(out), round_to(np.concatenate([x, y], axis=2).reshape(3, -1), dtype), "joined")
