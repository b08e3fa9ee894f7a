"""What this GPU can do at most: reading, copying, multiplying; by torch, cuBLAS and one Triton kernel."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import triton
import triton.language as tl
from report import Row
from setup import Setup, attempt


@triton.jit
def read_kernel(x, out, size, BLOCK: tl.constexpr):
    """Sums of what a program reads; so little is written that only reading counts."""
    total = tl.zeros((BLOCK,), tl.float32)
    step = tl.num_programs(0).to(tl.int64) * BLOCK
    for start in range(tl.program_id(0).to(tl.int64) * BLOCK, size, step):
        total += tl.load(x + start + tl.arange(0, BLOCK))
    tl.store(out + tl.program_id(0), tl.sum(total, 0))


def run(setup: Setup) -> Iterator[Row]:
    yield from attempt("read", lambda: _read(setup))
    yield from attempt("copy", lambda: _copy(setup))
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        yield from attempt(f"matmul {dtype}", lambda dtype=dtype: _matmul(setup, dtype))
    yield from attempt("matmul fp8", lambda: _fp8(setup))


def _read(setup: Setup) -> Iterator[Row]:
    block = setup.pick(4096, 64)
    x = setup.random(setup.pick(1 << 29, 1 << 10))
    programs = setup.pick(132 * 8, 2)
    out = torch.zeros(programs, device=setup.device)
    seconds = setup.seconds(lambda: read_kernel[(programs,)](x, out, x.numel(), BLOCK=block, num_warps=8, num_stages=4))
    total = float(out.double().sum())
    wanted = float(x.double().sum())
    is_good = abs(total - wanted) <= 1e-6 * float(x.abs().double().sum())
    yield Row("read", 4 * x.numel() / seconds / 1e9, "GB/s", f"{_share(4 * x.numel() / seconds, setup)}", is_good)


def _copy(setup: Setup) -> Iterator[Row]:
    x = setup.random(setup.pick(1 << 29, 1 << 10))
    y = torch.empty_like(x)
    seconds = setup.seconds(lambda: y.copy_(x))
    yield Row("copy, read and written", 8 * x.numel() / seconds / 1e9, "GB/s", _share(8 * x.numel() / seconds, setup))


def _matmul(setup: Setup, dtype: torch.dtype) -> Iterator[Row]:
    size = setup.pick(8192, 64)
    a, b = setup.random(size, size, dtype=dtype, seed=1), setup.random(size, size, dtype=dtype, seed=2)
    out = torch.empty_like(a)
    seconds = setup.seconds(lambda: torch.mm(a, b.T, out=out))
    yield Row(f"matmul {dtype} {size}", 2 * size**3 / seconds / 1e12, "TFLOP/s")


def _fp8(setup: Setup) -> Iterator[Row]:
    if setup.is_dry:
        yield Row("matmul fp8", note="not on a CPU")
        return
    size = 8192
    a, b = (setup.random(size, size, seed=seed).to(torch.float8_e4m3fn) for seed in (1, 2))
    one = torch.ones((), device=setup.device)
    seconds = setup.seconds(
        lambda: torch._scaled_mm(a, b.T, scale_a=one, scale_b=one, out_dtype=torch.bfloat16), is_recorded=False
    )
    yield Row(f"matmul fp8 {size}", 2 * size**3 / seconds / 1e12, "TFLOP/s")


def _share(rate: float, setup: Setup) -> str:
    return f"{rate / setup.bandwidth:.2f} of what it is sold with"
