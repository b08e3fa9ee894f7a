"""depthwise_conv: out[t, c] = act(weight[c, 0] * x[t - W // 2, c] + ... + weight[c, W - 1] * x[t + W // 2, c]
(+ bias[c])) over the rows of a step, which are one sequence; rows that it does not have are zeros; act is silu or
nothing. W is odd.

x: [T, C] float32, out: [T, C] of any compute type, apart, rows any distance apart; weight: [C, W] and bias: [C]
float32, contiguous. A program has some rows of some channels. Sums are from the first row on: a row's bits depend on
the rows around it alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.activations import silu
from albireo.backends.cuda.kernels.parts.arithmetic import round_to

#: Rows and channels of a program.
_ROWS, _CHANNELS = 16, 128


@triton.jit(do_not_specialize=["num_rows"])
def depthwise_conv_kernel(
    x,
    weight,
    bias,
    out,
    num_rows,
    x_stride,
    out_stride,
    CHANNELS: tl.constexpr,
    WIDTH: tl.constexpr,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channel = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_channel = channel < CHANNELS
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for j in range(WIDTH):
        source = rows + (j - WIDTH // 2)
        is_there = (source >= 0) & (source < num_rows)
        value = tl.load(
            x + source.to(tl.int64)[:, None] * x_stride + channel[None, :],
            mask=is_there[:, None] & is_channel[None, :],
            other=0.0,
        )
        total += value * tl.load(weight + channel * WIDTH + j, mask=is_channel, other=0.0)[None, :]
    if bias is not None:
        total += tl.load(bias + channel, mask=is_channel, other=0.0)[None, :]
    if SILU:
        total = silu(total)
    to = out + rows.to(tl.int64)[:, None] * out_stride + channel[None, :]
    tl.store(to, round_to(total, out.dtype.element_ty), mask=(rows < num_rows)[:, None] & is_channel[None, :])


def depthwise_conv(
    x: torch.Tensor,
    weight: torch.Tensor,
    out: torch.Tensor,
    bias: torch.Tensor | None = None,
    activation: str = "silu",
) -> None:
    """activation: one of graph.op_numbers.CONV_ACTIVATIONS."""
    channels, width = weight.shape
    depthwise_conv_kernel[(triton.cdiv(len(x), _ROWS), triton.cdiv(channels, _CHANNELS))](
        x,
        weight,
        bias,
        out,
        len(x),
        x.stride(0),
        out.stride(0),
        CHANNELS=channels,
        WIDTH=width,
        SILU=activation == "silu",
        ROWS=_ROWS,
        BLOCK=_CHANNELS,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    roles, strides = ("x", "weight", "bias", "out"), ("x_stride", "out_stride")
    return [
        AotCase(
            f"depthwise_conv.{width}",
            depthwise_conv_kernel,
            dict.fromkeys(roles, "*fp32") | dict.fromkeys(("num_rows", *strides), "i32") | {"out": "*bf16"},
            {"CHANNELS": 1024, "WIDTH": width, "SILU": True, "ROWS": _ROWS, "BLOCK": _CHANNELS},
            aligned=(*roles, *strides),
            max_registers=96,
            max_shared=4 << 10,
            words=dict.fromkeys(architectures, ("LDG.E.128",)),
            architectures=architectures,
        )
        for width, architectures in ((9, (80, 90, 100)), (31, (90,)))
    ]
