"""output_gate: the bits of what it does in one, done one behind another."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.elementwise import elementwise
from albireo.backends.cuda.kernels.head_norm import head_norm
from albireo.backends.cuda.kernels.output_gate import output_gate
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
