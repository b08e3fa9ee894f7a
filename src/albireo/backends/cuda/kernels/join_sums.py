"""join_sums: one attention of two whose rows have seen different positions, and of one score more of each head.

x, y: [T, H * (W + 2)] float32, rows any distance apart, as attention leaves sums: of each head W numbers v that are not
divided, m, the largest score in units of log 2, and l, the sum of powers. sinks: [H] float32. out: [T, H * W] of any
compute type. out[h] = (2^(mx - m) vx + 2^(my - m) vy) / (2^(mx - m) lx + 2^(my - m) ly + 2^(log2(e) sinks[h] - m)), m
being the largest of the three exponents. A program has some heads of a row: bits depend on the row alone; a padding row
is like others.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.softmax import LOG2E, power_of_two
from albireo.graph.attention_op import SUM_NUMBERS

_MORE = tl.constexpr(SUM_NUMBERS)
#: Numbers of a program.
_NUMBERS = 1024


@triton.jit
def join_sums_kernel(
    x, y, sinks, out, x_stride, y_stride, out_stride, num_heads,
    WIDTH: tl.constexpr, HEADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    at = tl.arange(0, BLOCK)
    is_head = head < num_heads
    mask = is_head[:, None] & (at < WIDTH)[None, :]
    of_x, of_y = x + row * x_stride + head * (WIDTH + _MORE), y + row * y_stride + head * (WIDTH + _MORE)
    x_most, y_most = tl.load(of_x + WIDTH, mask=is_head, other=0.0), tl.load(of_y + WIDTH, mask=is_head, other=0.0)
    sink = tl.load(sinks + head, mask=is_head, other=0.0) * LOG2E
    most = tl.maximum(tl.maximum(x_most, y_most), sink)
    by_x, by_y = power_of_two(x_most - most), power_of_two(y_most - most)
    whole = tl.load(of_x + WIDTH + 1, mask=is_head, other=0.0) * by_x
    whole = whole + tl.load(of_y + WIDTH + 1, mask=is_head, other=0.0) * by_y + power_of_two(sink - most)
    by_x, by_y = tl.div_rn(by_x, whole), tl.div_rn(by_y, whole)
    seen = tl.load(of_x[:, None] + at[None, :], mask=mask, other=0.0) * by_x[:, None]
    seen += tl.load(of_y[:, None] + at[None, :], mask=mask, other=0.0) * by_y[:, None]
    to = out + row * out_stride + (head * WIDTH)[:, None] + at[None, :]
    tl.store(to, round_to(seen, out.dtype.element_ty), mask=mask)


def join_sums(x: torch.Tensor, y: torch.Tensor, sinks: torch.Tensor, out: torch.Tensor) -> None:
    num_heads = len(sinks)
    width = out.shape[1] // num_heads
    heads, block = _tile(num_heads, width)
    join_sums_kernel[(len(x), triton.cdiv(num_heads, heads))](
        x,
        y,
        sinks,
        out,
        x.stride(0),
        y.stride(0),
        out.stride(0),
        num_heads,
        WIDTH=width,
        HEADS=heads,
        BLOCK=block,
        num_warps=4,
        enable_fp_fusion=False,
    )


def _tile(num_heads: int, width: int) -> tuple[int, int]:
    """Heads and numbers of each, powers of two."""
    block = int(triton.next_power_of_2(width))
    return min(max(1, _NUMBERS // block), int(triton.next_power_of_2(num_heads))), block


def aot_cases() -> list[AotCase]:
    heads, block = _tile(64, 512)
    floats, strides = ("x", "y", "sinks", "out"), ("x_stride", "y_stride", "out_stride")
    return [
        AotCase(
            "join_sums.d512",
            join_sums_kernel,
            dict.fromkeys(floats, "*fp32") | dict.fromkeys((*strides, "num_heads"), "i32"),
            {"WIDTH": 512, "HEADS": heads, "BLOCK": block},
            aligned=(*floats, *strides),
            max_registers=64,
            max_shared=1 << 10,
            words={80: ("STG.E.128",), 90: ("STG.E.128",), 100: ("STG.E.128",)},
        )
    ]
