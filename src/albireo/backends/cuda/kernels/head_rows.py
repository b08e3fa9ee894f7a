"""head_rows: a head_linear with others' parts of heads behind what it gives, rotated by the row's position or as they
are: out[t, h] = x[t, h] @ block h of weight^T, then tail[t, h].

x: [T, H * K] float32 or weight's type, rounded to that; weight: [H * B, K], as of head_linear; tail: [T, H * D]
float32, D even; out: [T, H * (N + D)] of any compute type; rows any distance apart. table: [positions, 2, D / 2]
float32, cosines then sines, or None: nothing is rotated; turns: [T] int32, its rows. Pairs of channels are (i, i + D /
2), or side by side. A program computes up to 32 tokens by 64 outputs of one head, in the chain of head_linear, or
copies the tails of one head. So bits are those of a cast, head_linear, rope and join_heads, one behind another.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from albireo.backends.cuda.aot import AotCase
from albireo.backends.cuda.kernels.parts.arithmetic import round_to
from albireo.backends.cuda.kernels.parts.head_product import BLOCK_K, BLOCK_N, head_product, tile_rows
from albireo.graph.program import PANEL


@triton.jit(do_not_specialize=["tokens"])
def head_rows_kernel(
    x,
    weight,
    tail,
    table,
    turns,
    out,
    tokens,
    x_stride,
    tail_stride,
    out_stride,
    N: tl.constexpr,
    K: tl.constexpr,
    D: tl.constexpr,
    HEIGHT: tl.constexpr,
    HALF: tl.constexpr,
    PAIRS: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    head = tl.program_id(2)
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    is_row = rows < tokens
    to = out + rows.to(tl.int64)[:, None] * out_stride + head * (N + D)
    if tl.program_id(1) * BN < N:
        columns = tl.program_id(1) * BN + tl.arange(0, BN)
        acc = head_product(x, weight, rows, is_row, columns, head, x_stride, K, HEIGHT, BM, BN, BK)
        mask = is_row[:, None] & (columns < N)[None, :]
        tl.store(to + columns[None, :], round_to(acc, out.dtype.element_ty), mask=mask)
    else:
        channel = tl.arange(0, HALF)[None, :]
        is_there = is_row[:, None] & (channel < D // 2)
        if PAIRS:
            first, second = 2 * channel, 2 * channel + 1
        else:
            first, second = channel, channel + D // 2
        from_tail = tail + rows.to(tl.int64)[:, None] * tail_stride + head * D
        low = tl.load(from_tail + first, mask=is_there, other=0.0)
        high = tl.load(from_tail + second, mask=is_there, other=0.0)
        if table is not None:
            position = tl.load(turns + rows, mask=is_row, other=0).to(tl.int64)[:, None]
            of_row = table + position * D + channel
            cos = tl.load(of_row, mask=is_there, other=0.0)
            sin = tl.load(of_row + D // 2, mask=is_there, other=0.0)
            low, high = low * cos - high * sin, high * cos + low * sin
        tl.store(to + N + first, round_to(low, out.dtype.element_ty), mask=is_there)
        tl.store(to + N + second, round_to(high, out.dtype.element_ty), mask=is_there)


@dataclass(frozen=True, slots=True)
class HeadTails:
    """What comes behind. Fields: rows: [T, H * D] float32. table, turns: of the rotation; None: there is none."""

    rows: torch.Tensor
    table: torch.Tensor | None = None
    turns: torch.Tensor | None = None
    side_by_side: bool = False


def head_rows(
    x: torch.Tensor, weight: torch.Tensor, tails: HeadTails, out: torch.Tensor, num_heads: int, n: int
) -> None:
    """n: outputs of a head's matrix."""
    tokens, rows, width = len(x), tile_rows(len(x)), tails.rows.shape[1] // num_heads
    head_rows_kernel[(triton.cdiv(tokens, rows), triton.cdiv(n, BLOCK_N) + 1, num_heads)](
        x,
        weight,
        tails.rows,
        tails.table,
        tails.turns,
        out,
        tokens,
        x.stride(0),
        tails.rows.stride(0),
        out.stride(0),
        N=n,
        K=weight.shape[1],
        D=width,
        HEIGHT=-(-n // PANEL) * PANEL,
        HALF=triton.next_power_of_2(width // 2),
        PAIRS=tails.side_by_side,
        BM=rows,
        BN=BLOCK_N,
        BK=BLOCK_K,
        num_warps=4,
        enable_fp_fusion=False,
    )


def aot_cases() -> list[AotCase]:
    def case(rows: int, x: str, is_turned: bool, architectures: tuple[int, ...]) -> AotCase:
        """DeepSeek V3's; not turned: Kimi Linear's."""
        pointers = {"x": x, "weight": "*bf16", "tail": "*fp32", "out": "*bf16"}
        if is_turned:
            pointers |= {"table": "*fp32", "turns": "*i32"}
        strides = ("x_stride", "tail_stride", "out_stride")
        constants = {"N": 512, "K": 128, "D": 64, "HEIGHT": 512, "HALF": 32, "PAIRS": is_turned}
        return AotCase(
            f"head_rows.bfloat16.rows{rows}{'.turned' * is_turned}{'.of16' * (x == '*bf16')}",
            head_rows_kernel,
            pointers | dict.fromkeys(("tokens", *strides), "i32"),
            constants
            | {"BM": rows, "BN": BLOCK_N, "BK": BLOCK_K}
            | ({} if is_turned else {"table": None, "turns": None}),
            num_warps=4,
            aligned=(*(name for name in pointers if name != "turns"), *strides),
            max_registers=128,
            max_shared=80 << 10,
            words=dict.fromkeys(architectures, ("HMMA", "LDGSTS.E.BYPASS.128")),
            architectures=architectures,
        )

    return [case(16, "*fp32", True, (80, 90, 100)), case(32, "*fp32", True, (90,)), case(32, "*bf16", False, (90,))]
