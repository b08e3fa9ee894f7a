"""The product of some rows with the matrix of one head: said once for head_linear and head_rows, so that both have its
bits."""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import mma, round_to

#: Outputs of a program, and inputs of a step.
BLOCK_N, BLOCK_K = 64, 64


def tile_rows(num_tokens: int) -> int:
    """Of a program: 16 and 32 are the same instruction."""
    return 16 if num_tokens <= 16 else 32


@triton.jit
def head_product(
    x,
    weight,
    rows,
    is_row,
    columns,
    head,
    x_stride,
    K: tl.constexpr,
    HEIGHT: tl.constexpr,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """[BM, BN] float32: columns of block `head` of weight, HEIGHT rows each, times its part of rows of x, rounded to
    weight's type; one chain over K, BK at a time."""
    lanes = tl.arange(0, BK)
    from_x = x + rows.to(tl.int64)[:, None] * x_stride + head * K
    # rows of a block are whole panels, so that all BN of them are there
    from_weight = weight + (head * HEIGHT + columns).to(tl.int64)[:, None] * K
    acc = tl.zeros((BM, BN), tl.float32)
    for start in tl.range(0, K, BK, num_stages=3):
        at = start + lanes
        a = tl.load(from_x + at[None, :], mask=is_row[:, None] & (at < K)[None, :], other=0.0)
        b = tl.load(from_weight + at[None, :], mask=(at < K)[None, :], other=0.0)
        if x.dtype.element_ty != weight.dtype.element_ty:
            a = round_to(a, weight.dtype.element_ty)
        acc = mma(a, tl.trans(b), acc)
    return acc
