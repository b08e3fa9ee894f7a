"""rope against the rotation of pairs in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.rope import rope
from albireo.backends.reference.rounding import round_to
from albireo.backends.rope_table import rope_table
from albireo.graph.ops import RopeSpec
from backends.cpu.harness import F32, assert_same_bits, normal
from backends.cuda.tensors import ULP, ids, numbers, room, tensor

POSITIONS = [0, 5, 199]


def packed_table(head_dim: int, num_positions: int) -> F32:
    """[positions, 2, D / 2], as constants hold it."""
    spec = RopeSpec(tuple(float(f) for f in 10000.0 ** -np.linspace(0, 1, head_dim // 2)), 1.25)
    table = rope_table(spec, np.arange(num_positions, dtype=np.int32))
    return np.ascontiguousarray(table.transpose(0, 2, 1))


@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 8), (5, 80), (1, 96), (9, 64), (3, 256)])
def test_pairs_are_rotated(num_heads: int, head_dim: int) -> None:
    x, table = normal(3, num_heads * head_dim), packed_table(head_dim, 200)
    pairs = x.reshape(3, num_heads, 2, head_dim // 2).astype(np.float64)
    rows = table[POSITIONS].astype(np.float64)
    turn = (rows[:, 0] + 1j * rows[:, 1])[:, None]
    turned = (pairs[:, :, 0] + 1j * pairs[:, :, 1]) * turn
    exact = np.stack([turned.real, turned.imag], axis=2).reshape(x.shape)
    size = np.repeat(np.abs(turned)[:, :, None], 2, axis=2).reshape(x.shape)
    out, rounded = room(*x.shape), room(*x.shape, "bfloat16")
    rope(tensor(x), torch.from_numpy(table), ids(POSITIONS), out, num_heads, head_dim)
    # two products of a pair, and their sum
    assert (np.abs(numbers(out) - exact) <= 3 * ULP * size).all()
    rope(tensor(x), torch.from_numpy(table), ids(POSITIONS), rounded, num_heads, head_dim)
    assert_same_bits(numbers(rounded), round_to(numbers(out), "bfloat16"), "bfloat16")
