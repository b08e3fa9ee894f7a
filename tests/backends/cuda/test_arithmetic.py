"""The helpers give, in the interpreter, the numbers that a GPU's own instructions give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import mma, round_to, round_to_e4m3, round_to_int

EDGES = [
    0.0,
    -0.0,
    1.0,
    448.0,
    449.0,
    464.0,
    465.0,
    1e9,
    2.0**-9,
    2.0**-10,
    3 * 2.0**-11,
    0.0146,
    17.0,
    19.0,
    -21.0,
    1e-30,
]


@triton.jit
def rounding_kernel(x, as_bfloat16, as_e4m3, as_int, N: tl.constexpr):
    at = tl.arange(0, N)
    value = tl.load(x + at)
    tl.store(as_bfloat16 + at, round_to(value, tl.bfloat16))
    tl.store(as_e4m3 + at, round_to_e4m3(value))
    tl.store(as_int + at, round_to_int(value))


@triton.jit
def mma_kernel(a, b, out, N: tl.constexpr):
    at = tl.arange(0, N)
    square = at[:, None] * N + at[None, :]
    tl.store(out + square, mma(tl.load(a + square), tl.load(b + square), tl.zeros((N, N), tl.float32)))


def test_rounding_is_to_nearest_even() -> None:
    rng = np.random.default_rng(3)
    x = torch.from_numpy(np.concatenate([EDGES, rng.standard_normal(4096 - len(EDGES)) * 50]).astype(np.float32))
    as_bfloat16, as_int = torch.empty(4096, dtype=torch.bfloat16), torch.empty(4096)
    as_e4m3 = torch.empty(4096, dtype=torch.float8_e4m3fn)
    rounding_kernel[(1,)](x, as_bfloat16, as_e4m3, as_int, N=4096)
    assert torch.equal(as_bfloat16.view(torch.int16), x.to(torch.bfloat16).view(torch.int16))
    assert torch.equal(as_e4m3.view(torch.uint8), x.clamp(-448, 448).to(torch.float8_e4m3fn).view(torch.uint8))
    small = x.abs() < 2**22
    assert torch.equal(as_int[small], x[small].round())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_products_are_those_of_the_numbers(dtype: torch.dtype) -> None:
    a, b = (torch.randn(32, 32, generator=torch.Generator().manual_seed(s)).to(dtype) for s in (1, 2))
    out = torch.empty(32, 32)
    mma_kernel[(1,)](a, b, out, N=32)
    wanted = a.double() @ b.double()
    bound = 32 * 2.0**-24 * (a.double().abs() @ b.double().abs())
    assert ((out - wanted).abs() <= bound).all()
