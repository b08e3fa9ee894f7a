"""Linears of token rows and integer codes: the native core's bits, for few tokens and many, at every tile."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from albireo.backends.cpu.machine import isa_levels
from albireo.backends.cuda.kernels.matmul_groups import matmul_groups
from albireo.backends.cuda.kernels.matmul_int8 import matmul_int8
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.linear import linear, workspace_size
from albireo.encodings import ENCODINGS, encoding
from albireo.quantization.encoded import Encoded, nested_numbers
from backends.cpu.encoded_linears import linear as native_linear
from backends.cpu.encoded_linears import panels, tokens
from backends.cuda.encoded import decoded, device_matrix, random_encoded, symmetric
from backends.cuda.linears import activated, interleaved, random

INTEGERS = [name for name, item in ENCODINGS.items() if item.kind != "float"]
#: A level of the native core that fuses multiply-adds, as a GPU does.
FUSED = next((level for level in isa_levels() if level.startswith("avx2")), None)


@pytest.mark.parametrize("name", INTEGERS)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 40, 200), (18, 33, 36), (66, 70, 144)])
def test_bits_are_those_of_the_native_core(name: str, m: int, n: int, k: int) -> None:
    if FUSED is None:
        pytest.skip("no level with fused multiply-adds here")
    encoded = symmetric(random_encoded(encoding(name), n, k, seed=k))
    x = tokens(random(m, k, seed=1).numpy(), "scalar")
    wanted = native_linear(x, encoded, panels(encoded), FUSED)
    out = torch.full((m, n + 1), torch.nan)
    linear(torch.from_numpy(x), device_matrix(encoded), out[:, :n])
    assert workspace_size(name, n, k) == 0
    assert out[:, n:].isnan().all()
    found = out[:, :n].numpy()
    if encoding(name).is_nested:
        assert (np.abs(found - exact(encoded, x, k)) <= bound_of_nests(encoded, x, k)).all()
    elif name.startswith("int8.g") and encoded.offset is not None:  # codes have signs here: another offset
        codes, scale = x[:, :k].view(np.int8), x.view(np.float32)[:, -(-k // 64) * 16, None]
        size = np.abs(codes * scale) @ (np.abs(decoded(device_matrix(encoded))) + 512 * np.abs(encoded.scale).max()).T
        assert (np.abs(found - wanted) <= 2.0**-22 * encoded.scale.shape[1] * size).all()
    else:
        assert np.array_equal(found, wanted)


def token_numbers(x: np.ndarray, k: int) -> np.ndarray:
    """[T, K] float64."""
    return x[:, :k].view(np.int8) * x.view(np.float32)[:, -(-k // 64) * 16, None].astype(np.float64)


def exact(encoded: Encoded, x: np.ndarray, k: int) -> np.ndarray:
    scale, offset = encoded.of_groups()
    numbers = nested_numbers(encoded.encoding, encoded.codes) * encoded._spread(scale).astype(np.float64)
    return token_numbers(x, k) @ (numbers if offset is None else numbers + encoded._spread(offset)).T


def bound_of_nests(encoded: Encoded, x: np.ndarray, k: int) -> np.ndarray:
    """A nest's sum is rounded once, the chain twice for each, and once what a token's scale multiplies."""
    scale, offset = encoded.of_groups()
    size = np.abs(nested_numbers(encoded.encoding, encoded.codes) * encoded._spread(scale).astype(np.float64))
    size = size if offset is None else size + np.abs(encoded._spread(offset))
    return (2.0 * encoded.encoding.num_nests(k) + 3) * 2.0**-24 * np.abs(token_numbers(x, k)) @ size.T


@pytest.mark.parametrize("name", ["int8", "int8.g32", "int4.g64", "int4p.g128", "q5_k", "iq2_s"])
def test_a_row_has_the_same_bits_in_any_company(name: str) -> None:
    matrix = device_matrix(symmetric(random_encoded(encoding(name), 70, 256, seed=2)))
    x = torch.from_numpy(tokens(random(70, 256, seed=1).numpy(), "scalar"))
    whole = torch.empty(70, 70)
    linear(x, matrix, whole)
    order = torch.randperm(70, generator=torch.Generator().manual_seed(3))[:17]
    step = 256 if encoding(name).bits < 8 else max(encoding(name).group or 128, 32)
    for tile in (None, Tile(16, 16, step, 1), Tile(64, 32, step, 1)):
        out = torch.empty(17, 70)
        if matrix.scale is not None and name == "int8":
            matmul_int8(x[order], matrix.codes, matrix.scale, Finish(out, 70), tile=tile)
        else:
            matmul_groups(x[order], matrix, Finish(out, 70), tile=tile)
        assert torch.equal(out, whole[order]), tile


@pytest.mark.parametrize("name", ["int8", "int4.g32"])
@pytest.mark.parametrize("act", ["silu_mul", "gelu_tanh_mul"])
def test_gate_and_up_become_one(name: str, act: str) -> None:
    k, n, m = 64, 40, 3
    encoded = symmetric(random_encoded(encoding(name), 128, k, seed=4))
    encoded.scale[:] = np.abs(encoded.scale) / 256
    matrix = device_matrix(encoded)
    x = tokens(random(m, k, seed=1).numpy(), "scalar")
    numbers = torch.from_numpy(x[:, :k].view(np.int8) * x.view(np.float32)[:, 16, None]).double()
    bias = random(2, n, seed=5)
    both = torch.from_numpy(decoded(matrix)).double().reshape(2, 2, 32, k)
    gate, up = (numbers @ both[:, i].reshape(64, k)[:n].T + bias[i] for i in range(2))
    wanted = activated(gate, up, act)
    out = torch.full((m, n), torch.nan, dtype=torch.bfloat16)
    linear(torch.from_numpy(x), matrix, out, interleaved(bias[0], bias[1]), act=act)
    error = 2.0**-20 * (numbers.abs() @ both.abs().reshape(128, k).T).max() * (gate.abs().max() + up.abs().max())
    assert ((out.double() - wanted).abs() <= error + 2.0**-8 * 1.01 * wanted.abs()).all()


def test_a_residual_is_added_in_place() -> None:
    encoded = symmetric(random_encoded(encoding("int4.g64"), 20, 128, seed=4))
    x = torch.from_numpy(tokens(random(5, 128, seed=1).numpy(), "scalar"))
    plain, residual = torch.empty(5, 20), random(5, 20, seed=2)
    linear(x, device_matrix(encoded), plain)
    wanted = plain + residual
    linear(x, device_matrix(encoded), residual, residual=residual)
    assert torch.equal(residual, wanted)
