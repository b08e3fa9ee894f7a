"""Linears through torch's own product: the numbers of linear(), slab by slab, and the same epilogues."""

from __future__ import annotations

import pytest
import torch

from albireo.backends.cuda.library import library_linear
from albireo.backends.cuda.matrix import DeviceMatrix
from albireo.encodings import encoding
from albireo.errors import InvariantError, UnsupportedModel
from backends.cuda.encoded import device_matrix, random_encoded
from backends.cuda.linears import activated, bound, interleaved, random


def matrix(weight: torch.Tensor) -> DeviceMatrix:
    return DeviceMatrix("bfloat16", *weight.shape, weight)


def test_bias_and_residual() -> None:
    x, weight = random(7, 40, seed=1, dtype=torch.bfloat16), random(20, 40, seed=2, dtype=torch.bfloat16)
    bias, residual = random(20, seed=3), random(7, 20, seed=4)
    wanted = x.double() @ weight.double().T + bias
    out, sums = torch.empty(7, 20, dtype=torch.bfloat16), torch.empty(3, 22)
    library_linear(x, matrix(weight), out, sums, bias)
    error = bound(x, weight) + 2.0**-22 * (wanted.abs() + 8)
    assert ((out - wanted).abs() <= error + 2.0**-8 * wanted.abs()).all()
    wanted += residual
    library_linear(x, matrix(weight), residual, sums, bias, residual)
    assert ((residual - wanted).abs() <= error + 2.0**-22 * wanted.abs()).all()


@pytest.mark.parametrize("act", ["silu_mul", "gelu_tanh_mul"])
def test_gate_and_up(act: str) -> None:
    x = random(5, 24, seed=1, dtype=torch.bfloat16)
    gate, up = (random(33, 24, seed=seed, dtype=torch.bfloat16) / 4 for seed in (2, 3))
    out, sums = torch.empty(5, 33, dtype=torch.bfloat16), torch.empty(4, 128)
    library_linear(x, matrix(interleaved(gate, up)), out, sums, act=act)
    parts = [x.double() @ w.double().T for w in (gate, up)]
    wanted = activated(parts[0], parts[1], act)
    error = 1.13 * bound(x, gate) * parts[1].abs() + bound(x, up) * parts[0].abs()
    assert ((out.double() - wanted).abs() <= error + 2.0**-8 * 1.01 * wanted.abs() + 1e-6).all()


def test_what_it_cannot_do_is_refused() -> None:
    weight = random(20, 40, seed=2, dtype=torch.bfloat16)
    x, out = random(7, 40, seed=1, dtype=torch.bfloat16), torch.empty(7, 20)
    with pytest.raises(InvariantError, match="20 columns"):
        library_linear(x, matrix(weight), out, torch.empty(3, 19))
    with pytest.raises(UnsupportedModel, match="int8"):
        library_linear(x, device_matrix(random_encoded(encoding("int8"), 20, 40, 1)), out, torch.empty(3, 20))
