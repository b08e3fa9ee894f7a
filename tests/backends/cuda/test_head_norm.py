"""head_norm against float64, head by head."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cuda.kernels.head_norm import head_norm
from backends.cpu.harness import assert_same_bits, normal
from backends.cuda.tensors import ULP, numbers, room, tensor

EPS = 1e-6


@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 8), (5, 80), (1, 96), (9, 64), (3, 256)])
def test_heads(num_heads: int, head_dim: int) -> None:
    x, weight = normal(3, num_heads * head_dim, seed=1), normal(1, head_dim, seed=2)[0]
    heads = x.reshape(3, num_heads, head_dim).astype(np.float64)
    exact = heads / np.sqrt(np.mean(heads**2, axis=2, keepdims=True) + EPS) * weight
    out = room(3, num_heads * head_dim)
    head_norm(tensor(x), torch.from_numpy(weight), out, EPS, num_heads)
    exact = exact.reshape(x.shape)
    assert (np.abs(numbers(out) - exact) <= (np.log2(head_dim) / 2 + 6) * ULP * np.abs(exact)).all()
    target = tensor(x)
    head_norm(target, torch.from_numpy(weight), target, EPS, num_heads)
    assert_same_bits(numbers(target), numbers(out), "in place")
    bare, ones = room(*x.shape), room(*x.shape)
    head_norm(tensor(x), None, bare, EPS, num_heads)
    head_norm(tensor(x), torch.ones(head_dim), ones, EPS, num_heads)
    assert_same_bits(numbers(bare), numbers(ones), "without a weight")


@pytest.mark.parametrize("of_all", [True, False])
@pytest.mark.parametrize(("num_heads", "head_dim"), [(3, 8), (5, 80), (1, 96), (9, 64)])
def test_heads_minus_their_mean(num_heads: int, head_dim: int, of_all: bool) -> None:
    x = normal(3, num_heads * head_dim, seed=1) + np.float32(3)
    weight = normal(1, num_heads * head_dim if of_all else head_dim, seed=2)[0]
    heads = torch.from_numpy(x).double().view(3, num_heads, head_dim)
    exact = torch.nn.functional.layer_norm(heads, (head_dim,), eps=EPS).numpy() * weight.reshape(-1, head_dim)
    out = room(3, num_heads * head_dim)
    head_norm(tensor(x), torch.from_numpy(weight), out, EPS, num_heads, True)
    bound = 4 * (np.log2(head_dim) + 6) * ULP * (np.abs(exact) + 4 * np.abs(weight.reshape(-1, head_dim)))
    assert (np.abs(numbers(out).reshape(exact.shape) - exact) <= bound).all()
