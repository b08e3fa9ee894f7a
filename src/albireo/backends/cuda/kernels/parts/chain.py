"""The chain of additions that a sum of a linear is: what matmul_smallm and matmul have in common, and so their bits.

Used inside their kernels. Codes of e4m3 become the bfloat16 numbers that they are, and are multiplied as those; where x
is e4m3 too both are multiplied as they are, and BLOCK_K is GROUP.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP, mma

#: How a weight is scaled: not at all, each channel, each channel for GROUP inputs.
UNSCALED, CHANNELS, GROUPS = 0, 1, 2
#: Inputs that share a scale; a tile of k is that long then.
GROUP = 128
_GROUPS, _GROUP = tl.constexpr(GROUPS), tl.constexpr(GROUP)


@triton.jit
def chain(
    weight_at, x_at, at_k, first, end, k, scale, row, num_rows,
    SCALED: tl.constexpr, EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """[ROWS, TOKENS] sums over k from first to end, ascending.

    weight_at, x_at: pointers [ROWS, BLOCK_K] and [BLOCK_K, TOKENS] of k = 0. scale: [groups, num_rows] with GROUPS, for
    which each group is a chain from zero whose sum, times its scale, is added to those before.
    """
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    # a scale is on its way while the group before is computed
    by = tl.load(scale + first // _GROUP * num_rows + row) if SCALED == _GROUPS else 0.0
    for start in range(first, end, BLOCK_K):
        if EVEN_K:
            a = tl.load(weight_at + start)
            b = tl.load(x_at + start)
        else:
            a = tl.load(weight_at + start, mask=(at_k < k - start)[None, :], other=0.0)
            b = tl.load(x_at + start, mask=(at_k < k - start)[:, None], other=0.0)
        if a.dtype == tl.uint8:
            a = e4m3_to_bfloat16(a)
        if SCALED == _GROUPS:
            next_group = tl.minimum(start // _GROUP + 1, (k - 1) // _GROUP)
            next_by = tl.load(scale + next_group * num_rows + row)
            acc = tl.fma(mma(a, b, tl.zeros((ROWS, TOKENS), tl.float32)), by[:, None], acc)  # type: ignore[index]
            by = next_by
        elif b.dtype == tl.float8e4nv:
            # Hopper adds float8 products with 14 bits only: no further than this
            acc += mma(a, b, tl.zeros((ROWS, TOKENS), tl.float32))
        else:
            acc = mma(a, b, acc)
    return acc


@triton.jit
def e4m3_to_bfloat16(code):
    """The numbers of e4m3fn codes in uint8, none of them NaN, four at a time and on every GPU.

    Their bits in a bfloat16's places stand for 2^-120 of them, small ones too.
    """
    if INTERP:
        bits = code.to(tl.int32)
        bits = ((bits & 0x7F) << 20) | ((bits & 0x80) << 24)
        return (bits.to(tl.float32, bitcast=True) * 1.329227995784916e36).to(tl.bfloat16)
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 low, high, sign, scale, none;
        mov.b32 scale, 0x7B807B80;
        mov.b32 none, 0x80008000;
        prmt.b32 low, $2, 0, 0x1404;
        prmt.b32 high, $2, 0, 0x3424;
        and.b32 sign, low, 0x80008000;
        and.b32 low, low, 0x7F007F00;
        shr.b32 low, low, 4;
        or.b32 low, low, sign;
        fma.rn.bf16x2 $0, low, scale, none;
        and.b32 sign, high, 0x80008000;
        and.b32 high, high, 0x7F007F00;
        shr.b32 high, high, 4;
        or.b32 high, high, sign;
        fma.rn.bf16x2 $1, high, scale, none;
        }""",
        "=r,=r,r",
        [code],
        dtype=tl.bfloat16,
        is_pure=True,
        pack=4,
    )
