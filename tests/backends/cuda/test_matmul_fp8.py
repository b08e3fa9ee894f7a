"""Linears of float8 weights and bfloat16 activations: numbers of codes, scales of channels and groups, bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from albireo.backends.cuda.kernels.matmul import matmul
from albireo.backends.cuda.kernels.matmul_smallm import matmul_smallm
from albireo.backends.cuda.kernels.parts.chain import e4m3_to_bfloat16
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.linear import linear, workspace_size
from albireo.backends.cuda.matmul_plan import Plan
from albireo.backends.cuda.sum_parts import num_parts
from albireo.encodings import encoding
from backends.cuda.encoded import decoded, device_matrix, random_encoded
from backends.cuda.linears import EPS, random


@triton.jit
def widen_kernel(words, out, PLANE: tl.constexpr):
    at = tl.arange(0, 64)
    tl.store(out + at, e4m3_to_bfloat16(tl.load(words + at), PLANE).to(tl.float32))


def test_codes_are_the_numbers_they_are() -> None:
    codes, out = torch.arange(256, dtype=torch.int32).to(torch.uint8), torch.empty(4, 64)
    for plane in range(4):
        widen_kernel[(1,)](codes.view(torch.int32), out[plane], plane)
    wanted, out = codes.view(torch.float8_e4m3fn).float(), out.T.reshape(-1)
    assert torch.equal(out[~wanted.isnan()], wanted[~wanted.isnan()])


def workspace(name: str, n: int, k: int) -> torch.Tensor:
    return torch.zeros(workspace_size(name, n, k), dtype=torch.uint8)


@pytest.mark.parametrize("name", ["fp8", "fp8.g128"])
@pytest.mark.parametrize(("m", "n", "k"), [(1, 40, 200), (20, 65, 1100), (66, 70, 256)])
def test_a_linear_is_the_product(name: str, m: int, n: int, k: int) -> None:
    encoded = random_encoded(encoding(name), n, k, seed=k)
    x, matrix = random(m, k, seed=1, dtype=torch.bfloat16), device_matrix(encoded)
    out, bias = torch.full((m, n), torch.nan), random(n, seed=2)
    linear(x, matrix, out, bias, workspace=workspace(name, n, k))
    numbers = torch.from_numpy(decoded(matrix).astype(np.float64))
    wanted = x.double() @ numbers.T + bias
    # the scale's rounding of a number is not made here, those of sums are
    error = (k + 16) * EPS * (x.double().abs() @ numbers.abs().T + bias.abs())
    assert ((out - wanted).abs() <= error).all()


@pytest.mark.parametrize(("name", "use_tma"), [("fp8", True), ("fp8.g128", False)])
def test_a_row_has_the_same_bits_in_any_company(name: str, use_tma: bool) -> None:
    n, k = 70, 1152
    assert num_parts(n, k, name) == 2
    matrix, space = device_matrix(random_encoded(encoding(name), n, k, seed=2)), workspace(name, n, k)
    x = random(70, k, seed=1, dtype=torch.bfloat16)
    whole = torch.empty(70, n)
    matmul(x, matrix, Finish(whole, n), plan=Plan(Tile(64, 128, 128, 1)), use_tma=use_tma)
    for tokens in (1, 17, 40):
        order = torch.randperm(70, generator=torch.Generator().manual_seed(tokens))[:tokens]
        out = torch.empty(tokens, n)
        matmul_smallm(x[order], matrix, Finish(out, n), workspace=space)
        assert torch.equal(out, whole[order]), tokens
