"""Linears of 4-bit weights and bfloat16 activations: against numpy, at the tails of every shape; and the same bits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from albireo.backends.cuda.kernels.matmul import matmul
from albireo.backends.cuda.kernels.matmul_smallm import matmul_smallm
from albireo.backends.cuda.kernels.parts.chain import nibble_to_bfloat16
from albireo.backends.cuda.kernels.parts.chain_fp4 import fp4_to_bfloat16
from albireo.backends.cuda.kernels.parts.epilogue import Finish
from albireo.backends.cuda.kernels.parts.tiles import Tile
from albireo.backends.cuda.linear import linear, workspace_size
from albireo.backends.cuda.matmul_plan import Plan
from albireo.backends.cuda.sum_parts import num_parts, part_length
from albireo.encodings import encoding
from albireo.quantization.encoded import E2M1_VALUES, Encoded, e4m3_values
from backends.cuda.encoded import decoded, device_matrix, random_encoded
from backends.cuda.linears import EPS, activated, interleaved, random


def workspace(name: str, n: int, k: int) -> torch.Tensor:
    return torch.zeros(workspace_size(name, n, k), dtype=torch.uint8)


@triton.jit
def nibbles_kernel(words, zero, out, PLANE: tl.constexpr):
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    word, less = tl.load(words + tl.arange(0, 16)), -128.0 - tl.load(zero + tl.arange(0, 16)).to(tl.float32)
    word = tl.broadcast_to(word[None, :], (16, 16))
    tl.store(out + at, nibble_to_bfloat16(word, less.to(tl.bfloat16), PLANE).to(tl.float32))


def test_nibbles_less_zero_points_are_exact() -> None:
    numbers, zero = torch.arange(16, dtype=torch.int32), torch.arange(16, dtype=torch.uint8)
    for plane in range(8):
        out = torch.empty(16, 16)
        nibbles_kernel[(1,)](numbers << (4 * plane) | ~(15 << (4 * plane)) & 0x2468ACE1, zero, out, plane)
        assert torch.equal(out, numbers.float()[None] - zero.float()[:, None])


@triton.jit
def fp4_kernel(words, scales, out, PLANE: tl.constexpr):
    at = tl.arange(0, 16)[:, None] * 16 + tl.arange(0, 16)[None, :]
    word = tl.broadcast_to(tl.load(words + tl.arange(0, 16))[None, :], (16, 16))
    by = tl.broadcast_to(tl.load(scales + tl.arange(0, 16)).to(tl.bfloat16)[:, None], (16, 16))
    tl.store(out + at, fp4_to_bfloat16(word, by, PLANE).to(tl.float32))


def test_floats_of_4_bits_times_their_scales_are_exact() -> None:
    codes, scales = torch.arange(16, dtype=torch.int32), torch.from_numpy(e4m3_values()[1::8][:16].copy())
    for plane in range(8):
        out = torch.empty(16, 16)
        fp4_kernel[(1,)](codes << (4 * plane) | ~(15 << (4 * plane)) & 0x2468ACE1, scales, out, plane)
        assert torch.equal(out, torch.from_numpy(E2M1_VALUES)[None] * scales[:, None])


@pytest.mark.parametrize(
    ("name", "m", "n", "k"),
    [
        ("int4.g32", 1, 40, 200),  # half a group at the end, and an odd number of them
        ("int4.g64", 20, 65, 1184),
        ("int4.g128", 3, 66, 1152),
        ("int4.g128", 66, 70, 640),
        ("fp4.g32", 1, 40, 200),
        ("fp4.g16", 20, 65, 1168),
        ("fp4.g32", 66, 70, 1184),
    ],
)
def test_a_linear_is_the_product(name: str, m: int, n: int, k: int) -> None:
    x, matrix = random(m, k, seed=1, dtype=torch.bfloat16), device_matrix(random_encoded(encoding(name), n, k, seed=k))
    out, bias, residual = torch.full((m, n), torch.nan), random(n, seed=2), random(m, n, seed=3)
    linear(x, matrix, out, bias, residual, workspace=workspace(name, n, k))
    numbers = torch.from_numpy(decoded(matrix).astype(np.float64))
    wanted = x.double() @ numbers.T + bias + residual
    # products of a whole number below 16, or of a float of 4 bits by its scale, and a bfloat16 are exact; sums, scales
    # of groups and the epilogue are not
    error = (k + 16) * EPS * (x.double().abs() @ numbers.abs().T + bias.abs() + residual.abs())
    assert ((out - wanted).abs() <= error).all()


def test_gate_and_up() -> None:
    e, n, k = encoding("int4.g64"), 40, 256
    gate, up = (random_encoded(e, n, k, seed=seed) for seed in (1, 2))
    parts = [
        interleaved(torch.from_numpy(getattr(gate, f)), torch.from_numpy(getattr(up, f))) for f in ("codes", "scale")
    ]
    zero = interleaved(torch.from_numpy(gate.zero), torch.from_numpy(up.zero))
    matrix = device_matrix(Encoded(e, parts[0].numpy(), parts[1].numpy(), zero.numpy()))
    x, out = random(5, k, seed=4, dtype=torch.bfloat16) / 16, torch.full((5, n), torch.nan, dtype=torch.bfloat16)
    linear(x, matrix, out, act="silu_mul", workspace=workspace(e.name, matrix.rows, k))
    g, u = (x.double() @ torch.from_numpy(decoded(device_matrix(part)).astype(np.float64)).T for part in (gate, up))
    wanted = activated(g, u, "silu_mul")
    assert ((out - wanted).abs() <= 2.0**-8 * wanted.abs() + 1e-4 * (1 + g.abs()) * (1 + u.abs())).all()


@pytest.mark.parametrize(
    ("name", "use_tma"), [("int4.g32", False), ("int4.g128", True), ("fp4.g32", True), ("fp4.g16", False)]
)
def test_a_row_has_the_same_bits_in_any_company(name: str, use_tma: bool) -> None:
    n, k = 70, 1184
    assert num_parts(n, k, name) == 2 and part_length(k, 2) == 768
    matrix, space = device_matrix(random_encoded(encoding(name), n, k, seed=2)), workspace(name, n, k)
    x = random(70, k, seed=1, dtype=torch.bfloat16)
    whole = torch.empty(70, n)
    matmul(x, matrix, Finish(whole, n), plan=Plan(Tile(64, 128, 256, 1)), use_tma=use_tma)
    for tokens in (1, 17, 40):
        out = torch.full((tokens, n), torch.nan)
        order = torch.arange(70).flip(0)[:tokens]
        matmul_smallm(x[order], matrix, Finish(out, n), workspace=space)
        assert torch.equal(out, whole[order])
    assert not space[: 4 * 1024].any(), "counters are zero again"
