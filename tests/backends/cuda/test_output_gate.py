"""output_gate: the bits of what it does in one, done one behind another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.head_norm import head_norm
from albireo.backends.cuda.kernels.output_gate import output_gate
from albireo.backends.reference.rounding import round_to
from backends.cpu.harness import assert_same_bits, normal
from backends.cuda.tensors import ULP, numbers, room, tensor

EPS = 1e-6


@pytest.mark.parametrize(
    ("kind", "num_heads", "head_dim", "dtype"),
    [
        ("silu", 5, 20, "bfloat16"),
        ("silu", 3, 128, "float32"),
        ("sigmoid", 3, 20, "bfloat16"),
        ("sigmoid", 0, 6, "float16"),
        ("sigmoid", 0, 1040, "float32"),
    ],
)
def test_one_is_as_one_behind_another(kind: str, num_heads: int, head_dim: int, dtype: str) -> None:
    """num_heads 0: there is no norm."""
    cols = max(1, num_heads) * head_dim
    x, gate = normal(3, cols), 3 * normal(3, cols, seed=1)
    weight = torch.from_numpy(normal(1, head_dim, seed=2)[0]) if num_heads else None
    normed, share, product, wanted = (room(3, cols) for _ in range(4))
    wanted = room(3, cols, dtype)
    if weight is not None:
        head_norm(tensor(x), weight, normed, EPS, num_heads)
    else:
        elementwise("cast", tensor(x), None, normed, cols)
    elementwise(kind, tensor(gate), None, share, cols)
    elementwise("mul", normed, share, product, cols)
    elementwise("cast", product, None, wanted, cols)
    out = room(3, cols, dtype)
    output_gate(kind, tensor(x), tensor(gate, pad=7), weight, out, num_heads, EPS)
    assert_same_bits(numbers(out), numbers(wanted), "in one")
    exact = 1 / (1 + np.exp(-gate.astype(np.float64)))
    exact = exact * gate if kind == "silu" else exact
    assert (np.abs(numbers(share) - exact) <= 8 * ULP * np.abs(exact)).all()


@pytest.mark.parametrize(("kind", "groups", "width"), [("silu", 3, 20), ("silu", 1, 1100), ("sigmoid", 2, 512)])
def test_a_norm_behind(kind: str, groups: int, width: int) -> None:
    """Of groups of what is let through, with a weight of each column."""
    cols = groups * width
    x, gate, weight = normal(3, cols), 3 * normal(3, cols, seed=1), normal(1, cols, seed=2)[0]
    wide = gate.astype(np.float64)
    let = x * (wide if kind == "silu" else 1) / (1 + np.exp(-wide))
    parts = let.reshape(3, groups, width)
    exact = (parts / np.sqrt((parts**2).mean(axis=2, keepdims=True) + EPS)).reshape(let.shape) * weight

    def found(rows: slice, dtype: str = "float32") -> np.ndarray:
        out = room(len(x[rows]), cols, dtype)
        given = tensor(x[rows]), tensor(gate[rows], pad=7), torch.from_numpy(weight)
        output_gate(kind, *given, out, groups, EPS, is_behind=True)
        return numbers(out)

    whole = found(slice(None))
    # of silu, then a tree over the part, a root, two divisions and two products
    assert (np.abs(whole - exact) <= (24 + np.log2(width)) * ULP * np.abs(exact)).all()
    assert_same_bits(found(slice(None), "bfloat16"), round_to(whole, "bfloat16"), "rounded")
    assert_same_bits(found(slice(1, 2)), whole[1:2], "a row alone")
