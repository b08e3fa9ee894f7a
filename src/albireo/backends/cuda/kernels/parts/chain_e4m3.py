"""The chain of additions of a sum of e4m3 products: what matmul_e4m3_smallm and matmul_e4m3 have in common.

Used inside their kernels, and in that of experts. Codes go to the matrix unit as they lie. It keeps 14 bits of a sum
(Hopper), so it adds no more than a GROUP of inputs; their product, times the scale of the token's group (and of the
weight's, where it has one), is added to those before in float32: sum = fma(product, scale of x [* scale of weight],
sum).

Few tokens are the columns of the matrix unit's tile, and many are its rows: then a thread has two tokens' sums, whose
scales are two registers, instead of 32 (Hopper; in the other order 64 loads a step and 58 registers in memory). Which
operand is which does not change a product.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import awaited, mma
from albireo.dtypes import FP8_GROUP

#: Inputs of a step.
GROUP = FP8_GROUP
#: Weight rows that one product of many tokens takes; a tile of more is two halves.
HALF = 128
_GROUP, _HALF = tl.constexpr(GROUP), tl.constexpr(HALF)


@triton.jit
def chain_of_few(
    weight_at, x_at, is_token, first, end, k, scale, row, num_rows, x_scale_at,
    GROUPED: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr,
):  # fmt: skip
    """[ROWS, TOKENS] sums over k from first to end, ascending.

    weight_at, x_at: pointers [ROWS, GROUP] and [GROUP, TOKENS] of k = 0. is_token: [1, TOKENS], what is read of x at
    all. x_scale_at: [TOKENS] pointers to the scale of the first group of each. scale: with GROUPED [groups, num_rows].
    """
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    last = k // _GROUP - 1
    # scales are on their way while the group before is computed
    group = tl.minimum(first // _GROUP, last)
    by_x = tl.load(x_scale_at + group)
    by_weight = tl.load(scale + group * num_rows + row) if GROUPED else 0.0
    for start in range(first, end, _GROUP):
        a = tl.load(weight_at + start)
        b = tl.load(x_at + start, mask=is_token, other=0.0)
        group = tl.minimum(start // _GROUP + 1, last)
        next_x = tl.load(x_scale_at + group)
        product = mma(a, b, tl.zeros((ROWS, TOKENS), tl.float32))
        if GROUPED:
            next_weight = tl.load(scale + group * num_rows + row)
            acc = tl.fma(product, by_x[None, :] * by_weight[:, None], acc)  # type: ignore[index]
            by_weight = next_weight
        else:
            acc = tl.fma(product, tl.broadcast_to(by_x[None, :], (ROWS, TOKENS)), acc)
        by_x = next_x
    return acc


@triton.jit
def chain_of_many(
    x_at, weight_at, first, end, k, scale, first_row, num_rows, x_scale_at,
    GROUPED: tl.constexpr, EVEN_ROWS: tl.constexpr, TOKENS: tl.constexpr, ROWS: tl.constexpr,
    first_token, TMA: tl.constexpr, GATHERED: tl.constexpr = False,
):  # fmt: skip
    """[TOKENS, ROWS] sums over k from first to end, ascending.

    x_at, weight_at: descriptors of blocks [TOKENS, GROUP] and [at most HALF, GROUP], which fill what is outside with
    zeros; without TMA pointers [TOKENS, GROUP] and [GROUP, ROWS] of k = 0. Rows of HALF or, by TMA, of two halves:
    sums so far of all of them, and those of a group of one half, are as many as there are registers. The left half's
    are awaited before the right one takes their place. EVEN_ROWS: whether num_rows is a whole number of ROWS. GATHERED:
    with TMA, rows of x lie anywhere: x_at is as without it.
    """
    if TMA:
        tl.assume(first < end)  # a loop that may not run makes ptxas wait for each product
    last = k // _GROUP - 1
    WIDTH: tl.constexpr = _HALF if TMA and ROWS > _HALF else ROWS
    left = tl.zeros((TOKENS, WIDTH), tl.float32)
    right = left
    none = tl.zeros((TOKENS, WIDTH), tl.float32)
    row = first_row + tl.arange(0, WIDTH)
    by = tl.load(x_scale_at + tl.minimum(first // _GROUP, last))
    for start in range(first, end, _GROUP):
        group = start // _GROUP
        a = x_at.load([first_token, start]) if TMA and not GATHERED else tl.load(x_at + start)
        b = tl.trans(weight_at.load([first_row, start])) if TMA else tl.load(weight_at + start)
        scales = _scales(by, scale, group, row, num_rows, GROUPED, EVEN_ROWS, none)
        left = awaited(tl.fma(mma(a, b, none), scales, left))
        if ROWS > WIDTH:
            b = tl.trans(weight_at.load([first_row + WIDTH, start]))
            scales = _scales(by, scale, group, row + WIDTH, num_rows, GROUPED, EVEN_ROWS, none)
            right = tl.fma(mma(a, b, none), scales, right)
        by = tl.load(x_scale_at + tl.minimum(group + 1, last))
    if ROWS > WIDTH:
        return tl.reshape(tl.permute(tl.join(left, right), (0, 2, 1)), (TOKENS, ROWS))
    else:
        return left


@triton.jit
def _scales(by, scale, group, row, num_rows, GROUPED: tl.constexpr, EVEN_ROWS: tl.constexpr, like):
    if GROUPED:
        # by a mask, not by copies of the last: so neighbours are loaded as pairs
        at = scale + group * num_rows + row
        of_rows = tl.load(at) if EVEN_ROWS else tl.load(at, mask=row < num_rows, other=0.0)
        return by[:, None] * of_rows[None, :]
    else:
        return tl.broadcast_to(by[:, None], like.shape)
