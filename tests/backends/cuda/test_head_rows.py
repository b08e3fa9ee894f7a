"""head_rows against a rounding, head_linear, rope and join_heads, one behind another, bit by bit; and a row alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.head_linear import head_linear
from albireo.backends.cuda.kernels.head_rows import HeadTails, head_rows
from albireo.backends.cuda.kernels.join_heads import join_heads
from albireo.backends.cuda.kernels.rope import rope
from backends.cpu.harness import assert_same_bits, normal
from backends.cuda.tensors import ids, numbers, room, tensor
from backends.cuda.test_rope import packed_table

pytestmark = pytest.mark.usefixtures("ordered_dot")


@pytest.mark.parametrize(
    ("dtype", "x_dtype", "rows", "heads", "n", "k", "width", "turns"),
    [
        ("bfloat16", "float32", 3, 3, 10, 12, 6, "side by side"),
        ("bfloat16", "bfloat16", 17, 2, 65, 70, 20, "halves"),
        ("float32", "float32", 5, 4, 64, 130, 8, "none"),
        ("float16", "float32", 33, 1, 64, 64, 2, "halves"),
    ],
)
def test_heads_with_tails(
    dtype: str, x_dtype: str, rows: int, heads: int, n: int, k: int, width: int, turns: str
) -> None:
    x, tail = normal(rows, heads * k), normal(rows, heads * width, seed=1)
    padded = np.zeros((heads, -(-n // 64) * 64, k), np.float32)
    padded[:, :n] = normal(heads, n, k, seed=2)
    weight = torch.from_numpy(padded.reshape(-1, k)).to(getattr(torch, dtype))
    table, positions = torch.from_numpy(packed_table(width, 100)), [7 * row % 100 for row in range(rows)]
    is_turned, pairs = turns != "none", turns == "side by side"

    met, turned, wanted = room(rows, heads * n), tensor(tail), room(rows, heads * (n + width), dtype)
    head_linear(tensor(x).to(weight.dtype), weight, met, heads, n)
    if is_turned:
        rope(tensor(tail), table, ids(positions), turned, heads, width, pairs)
    join_heads(met, turned, wanted, heads)

    def found(at: slice) -> np.ndarray:
        of = (table, ids(positions[at])) if is_turned else (None, None)
        out = room(len(x[at]), heads * (n + width), dtype)
        head_rows(tensor(x[at], x_dtype), weight, HeadTails(tensor(tail[at], pad=5), *of, pairs), out, heads, n)
        return numbers(out)

    assert_same_bits(found(slice(None)), numbers(wanted), "all rows")
    assert_same_bits(found(slice(rows - 1, rows)), numbers(wanted)[-1:], "a row alone")
