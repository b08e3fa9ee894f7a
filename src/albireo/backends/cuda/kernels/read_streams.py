"""read_streams: what a block reads of n residual streams, and how they are to be written and mixed, from sums of
linears of them all. With r = 1 / sqrt(mean(x^2) + eps) over all streams, and of sums y three parts:

read = sigmoid(y[:n] * r * scale + bias); written, [T, n], likewise of the next n, with their own scale and bias;
matrix, [T, n * n]: the others, balanced (balance.py). out = sum over j of (read[j] + plus) * x[j], and where there is a
gain over the root of its mean square, times gain.

x: [T, n * E], y: [T, 2 n + n * n] float32; scales: [1], biases: as wide as their part, gain: [E] float32; out: [T, E]
of any type; rows any distance apart, columns contiguous. Two programs a row, one of which makes out: it holds a stream,
made for E up to 32,768. A row's bits depend on the row alone; a padding row is like others. Source: Xie et al. 2026,
Manifold-Constrained Hyper-Connections.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import sigmoid
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.balancing import LEAST, balanced


@triton.jit
def _sigmoids(y, factor, scale, bias, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    sums = tl.load(y + i, mask=i < COUNT, other=0.0) * factor * tl.load(scale)
    return sigmoid(sums + tl.load(bias + i, mask=i < COUNT, other=0.0))


@triton.jit
def read_streams_kernel(
    x,
    y,
    read_scale,
    read_bias,
    written_scale,
    written_bias,
    mixed_scale,
    mixed_bias,
    gain,
    out,
    written,
    matrix,
    x_stride,
    y_stride,
    out_stride,
    written_stride,
    matrix_stride,
    width,
    eps,
    plus,
    least,
    norm_eps,
    COUNT: tl.constexpr,
    ROUNDS: tl.constexpr,
    COUNT_BLOCK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.arange(0, BLOCK)
    mask = at < width
    x += row * x_stride
    y += row * y_stride
    squares = tl.zeros((BLOCK,), tl.float32)
    for j in tl.static_range(COUNT):
        value = tl.load(x + j * width + at, mask=mask, other=0.0)
        squares += value * value
    whole = tl.div_rn(tl.sum(squares, axis=0), width * COUNT * 1.0)
    factor = tl.div_rn(1.0, tl.sqrt_rn(whole + eps))
    i = tl.arange(0, COUNT_BLOCK)
    if tl.program_id(1) == 0:
        read = _sigmoids(y, factor, read_scale, read_bias, COUNT, COUNT_BLOCK) + plus
        total = tl.zeros((BLOCK,), tl.float32)
        for j in tl.static_range(COUNT):
            by = tl.sum(tl.where(i == j, read, 0.0), axis=0)
            total += by * tl.load(x + j * width + at, mask=mask, other=0.0)
        if gain is not None:
            mean = tl.div_rn(tl.sum(total * total, axis=0), width * 1.0)
            total = total * tl.div_rn(1.0, tl.sqrt_rn(mean + norm_eps)) * tl.load(gain + at, mask=mask, other=0.0)
        tl.store(out + row * out_stride + at, round_to(total, out.dtype.element_ty), mask=mask)
    else:
        numbers = _sigmoids(y + COUNT, factor, written_scale, written_bias, COUNT, COUNT_BLOCK)
        tl.store(written + row * written_stride + i, numbers, mask=i < COUNT)
        is_number = (i < COUNT)[None, :, None] & (i < COUNT)[None, None, :]
        place = i[None, :, None] * COUNT + i[None, None, :]
        sums = tl.load(y + 2 * COUNT + place, mask=is_number, other=0.0) * factor * tl.load(mixed_scale)
        m = sums + tl.load(mixed_bias + place, mask=is_number, other=0.0)
        m = balanced(tl.where(is_number, m, LEAST), is_number, least, ROUNDS)
        tl.store(matrix + row * matrix_stride + place, m, mask=is_number)


@dataclass(frozen=True, slots=True)
class Shifts:
    """What sums become before they are numbers: times scale, [1], plus bias. float32 both."""

    scale: torch.Tensor
    bias: torch.Tensor


@dataclass(frozen=True, slots=True)
class Reading:
    """Fields: plus: to what is read by. rounds, least: of balance, which knows it as eps. eps: of the norm of all
    streams; norm_eps: of what is read."""

    eps: float
    plus: float
    rounds: int
    least: float
    norm_eps: float = 0.0


def read_streams(
    x: torch.Tensor,
    y: torch.Tensor,
    shifts: tuple[Shifts, Shifts, Shifts],
    gain: torch.Tensor | None,
    out: torch.Tensor,
    written: torch.Tensor,
    matrix: torch.Tensor,
    reading: Reading,
) -> None:
    """shifts: of what is read by, of what is written by, of the matrix."""
    width, count = out.shape[1], written.shape[1]
    block = triton.next_power_of_2(width)
    read_streams_kernel[(len(x), 2)](
        x,
        y,
        *(each for shift in shifts for each in (shift.scale, shift.bias)),
        gain,
        out,
        written,
        matrix,
        x.stride(0),
        y.stride(0),
        out.stride(0),
        written.stride(0),
        matrix.stride(0),
        width,
        reading.eps,
        reading.plus,
        reading.least,
        reading.norm_eps,
        COUNT=count,
        ROUNDS=reading.rounds,
        COUNT_BLOCK=triton.next_power_of_2(count),
        BLOCK=block,
        num_warps=_warps(block),
        enable_fp_fusion=False,
    )


def _warps(block: int) -> int:
    """Some sixteen numbers of a stream a thread."""
    return min(16, max(1, block // 512))


def aot_cases() -> list[AotCase]:
    vectors = [f"{name}_{part}" for name in ("read", "written", "mixed") for part in ("scale", "bias")]
    strides = [f"{name}_stride" for name in ("x", "y", "out", "written", "matrix")]
    arrays = {name: "*fp32" for name in ("x", "y", *vectors, "gain", "written", "matrix")} | {"out": "*bf16"}
    numbers = dict.fromkeys((*strides, "width"), "i32") | dict.fromkeys(("eps", "plus", "least", "norm_eps"), "fp32")
    return [
        AotCase(
            f"read_streams.{block}",
            read_streams_kernel,
            arrays | numbers,
            {"COUNT": 4, "ROUNDS": 20, "COUNT_BLOCK": 4, "BLOCK": block},
            num_warps=_warps(block),
            aligned=("x", "y", "gain", "out", "x_stride", "out_stride", "width"),
            max_registers=128,
            max_shared=4 << 10,
            words=dict.fromkeys(architectures, ("LDG.E.128",)),
            architectures=architectures,
        )
        for block, architectures in ((4096, (80, 90, 100)), (8192, (90,)))
    ]
