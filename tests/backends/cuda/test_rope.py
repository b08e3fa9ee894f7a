"""rope against the rotation of pairs in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.head_norm import head_norm
from albireo.backends.cuda.kernels.rope import Growing, rope
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


@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 10), (1, 128)])
def test_pairs_side_by_side(num_heads: int, head_dim: int) -> None:
    """Rotated as complex numbers, and in place."""
    x, table = normal(3, num_heads * head_dim), packed_table(head_dim, 200)
    rows = table[POSITIONS].astype(np.float64)
    turn = (rows[:, 0] + 1j * rows[:, 1])[:, None]
    turned = x.reshape(3, num_heads, -1, 2).astype(np.float64) @ [1, 1j] * turn
    exact = np.stack([turned.real, turned.imag], axis=-1).reshape(x.shape)
    size = np.repeat(np.abs(turned)[..., None], 2, axis=-1).reshape(x.shape)
    out, rounded, inside = room(*x.shape), room(*x.shape, "bfloat16"), tensor(x)
    for to in (out, rounded, inside):
        of = inside if to is inside else tensor(x)
        rope(of, torch.from_numpy(table), ids(POSITIONS), to, num_heads, head_dim, side_by_side=True)
    assert (np.abs(numbers(out) - exact) <= 3 * ULP * size).all()
    assert_same_bits(numbers(rounded), round_to(numbers(out), "bfloat16"), "bfloat16")
    assert_same_bits(numbers(inside), numbers(out), "in place")


def test_heads_grow_by_numbers_of_their_own() -> None:
    """By other positions than those that turn them; at 0 by what begins."""
    heads, dim = 5, 20
    x, table = normal(4, heads * dim), packed_table(dim, 200)
    slope, start = normal(1, heads, seed=1)[0], normal(1, heads, seed=2)[0]
    far = [0, 1, 700, 130_000]
    turned, grown, alone = room(*x.shape), room(*x.shape), room(1, x.shape[1])
    given = torch.from_numpy(table), ids([0, 5, 199, 7])
    growing = [torch.from_numpy(slope), torch.from_numpy(start)]
    rope(tensor(x), *given, turned, heads, dim)
    rope(tensor(x), *given, grown, heads, dim, growing=Growing(*growing, ids(far), 1))
    by = np.log(np.float64(far) + 1)[:, None] * slope + start
    wanted = numbers(turned).reshape(4, heads, dim) * by[..., None]
    size = np.abs(numbers(turned)).reshape(wanted.shape) * (np.abs(by) + np.abs(start))[..., None]
    assert (np.abs(numbers(grown).reshape(wanted.shape) - wanted) <= 8 * ULP * size + 1e-12).all()
    rope(tensor(x[2:3]), given[0], ids([199]), alone, heads, dim, growing=Growing(*growing, ids(far[2:3]), 1))
    assert_same_bits(numbers(alone), numbers(grown)[2:3], "a row alone")


@pytest.mark.parametrize(("is_weighed", "side_by_side"), [(False, False), (True, False), (False, True), (True, True)])
def test_heads_that_are_normed_before(is_weighed: bool, side_by_side: bool) -> None:
    """As two launches, bit by bit; of pairs side by side as sums of squares differ, which have another order."""
    heads, dim = 5, 20
    x, table = normal(3, heads * dim), torch.from_numpy(packed_table(dim, 200))
    weight = torch.from_numpy(normal(1, dim, seed=2)[0]) if is_weighed else None
    normed, apart, together = room(*x.shape), room(*x.shape, "bfloat16"), room(*x.shape, "bfloat16")
    head_norm(tensor(x), weight, normed, 1e-6, heads)
    rope(normed, table, ids(POSITIONS), apart, heads, dim, side_by_side)
    rope(tensor(x), table, ids(POSITIONS), together, heads, dim, side_by_side, weight=weight, eps=1e-6)
    if not side_by_side:
        assert_same_bits(numbers(together), numbers(apart), "bfloat16")
    exact = room(*x.shape)
    rope(tensor(x), table, ids(POSITIONS), exact, heads, dim, side_by_side, weight=weight, eps=1e-6)
    rope(normed, table, ids(POSITIONS), normed, heads, dim, side_by_side)
    assert (np.abs(numbers(exact) - numbers(normed)) <= 1e-6 * np.abs(numbers(normed)).max()).all()
