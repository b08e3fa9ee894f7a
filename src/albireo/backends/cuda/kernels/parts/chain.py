"""The chain of additions that a sum of a linear is: what matmul_smallm and matmul have in common, and so their bits.

Used inside their kernels. Codes of e4m3 become the bfloat16 numbers that they are, and are multiplied as those; where x
is e4m3 too both are multiplied as they are, and BLOCK_K is GROUP. Codes of 4 bits, less their zero points, are whole
numbers that bfloat16 holds; BLOCK_K is their group, of which a step takes two, the halves of the same bytes.

With TMA operands come by tensor descriptors, which fill what is outside of them with zeros.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP, awaited, mma

#: How a weight is scaled: not at all, each channel, each channel for GROUP inputs, or for BLOCK_K of 4 bits.
UNSCALED, CHANNELS, GROUPS, NIBBLES = 0, 1, 2, 3
#: Inputs that share a scale; a tile of k is that long then.
GROUP = 128
_GROUPS, _NIBBLES, _GROUP = tl.constexpr(GROUPS), tl.constexpr(NIBBLES), tl.constexpr(GROUP)


@triton.jit
def chain(
    weight_at, x_at, at_k, first, end, k, scale, zero, row, num_rows,
    SCALED: tl.constexpr, EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
    first_row=0, first_token=0, TMA: tl.constexpr = False,
):  # fmt: skip
    """[ROWS, TOKENS] sums over k from first to end, ascending.

    weight_at, x_at: pointers [ROWS, BLOCK_K] and [BLOCK_K, TOKENS] of k = 0; with TMA descriptors of blocks
    [ROWS, BLOCK_K] and [TOKENS, BLOCK_K], which are read from first_row and first_token on, and first is less than end.
    scale: [groups, num_rows] with GROUPS and
    NIBBLES, for which each group is a chain from zero whose sum, times its scale, is added to those before. zero: as
    scale, uint8, with NIBBLES.
    """
    if SCALED == _NIBBLES:
        return _chain_of_nibbles(
            weight_at, x_at, at_k, first, end, k, scale, zero, row, num_rows, EVEN_K, ROWS, TOKENS, BLOCK_K,
            first_row, first_token, TMA,
        )  # fmt: skip
    if TMA:
        tl.assume(first < end)  # a loop that may not run makes ptxas wait for each product
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    # a scale is on its way while the group before is computed
    by = tl.load(scale + first // _GROUP * num_rows + row) if SCALED == _GROUPS else 0.0
    for start in range(first, end, BLOCK_K):
        if TMA:
            a = weight_at.load([first_row, start])
            b = tl.trans(x_at.load([first_token, start]))
        elif EVEN_K:
            a = tl.load(weight_at + start)
            b = tl.load(x_at + start)
        else:
            a = tl.load(weight_at + start, mask=(at_k < k - start)[None, :], other=0.0)
            b = tl.load(x_at + start, mask=(at_k < k - start)[:, None], other=0.0)
        CODES: tl.constexpr = a.dtype == tl.uint8
        if CODES:
            a = e4m3_to_bfloat16(a)
        if SCALED == _GROUPS:
            next_group = tl.minimum(start // _GROUP + 1, (k - 1) // _GROUP)
            next_by = tl.load(scale + next_group * num_rows + row)
            acc = tl.fma(mma(a, b, tl.zeros((ROWS, TOKENS), tl.float32)), by[:, None], acc)  # type: ignore[index]
            by = next_by
        elif b.dtype == tl.float8e4nv:
            # Hopper adds float8 products with 14 bits only: no further than this
            acc += mma(a, b, tl.zeros((ROWS, TOKENS), tl.float32))
        elif CODES and TMA:
            # else the codes of the next step are widened beside this product, and ptxas waits four times a step
            acc = awaited(mma(a, b, acc))
        else:
            acc = mma(a, b, acc)
    return acc


@triton.jit
def _chain_of_nibbles(
    weight_at, x_at, at_k, first, end, k, scale, zero, row, num_rows,
    EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
    first_row, first_token, TMA: tl.constexpr,
):  # fmt: skip
    if TMA:
        tl.assume(first < end)
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    nothing = tl.zeros((ROWS, TOKENS), tl.float32)
    last = (k - 1) // BLOCK_K
    # numbers of a step's groups are on their way while the step before is computed; of a group behind the last one
    # those of the last, times zeros
    at_0 = first // BLOCK_K * num_rows + row
    at_1 = tl.minimum(first // BLOCK_K + 1, last) * num_rows + row
    by_0, by_1, less_0, less_1 = (
        tl.load(scale + at_0),
        tl.load(scale + at_1),
        tl.load(zero + at_0),
        tl.load(zero + at_1),
    )
    for start in range(first, end, 2 * BLOCK_K):
        code = weight_at.load([first_row, start // 2]) if TMA else tl.load(weight_at + start // 2)
        if TMA:
            b_0 = tl.trans(x_at.load([first_token, start]))
            b_1 = tl.trans(x_at.load([first_token, start + BLOCK_K]))
        elif EVEN_K:
            b_0 = tl.load(x_at + start)
            b_1 = tl.load(x_at + start + BLOCK_K)
        else:
            b_0 = tl.load(x_at + start, mask=(at_k < k - start)[:, None], other=0.0)
            b_1 = tl.load(x_at + start + BLOCK_K, mask=(at_k < k - start - BLOCK_K)[:, None], other=0.0)
        at_0 = tl.minimum(start // BLOCK_K + 2, last) * num_rows + row
        at_1 = tl.minimum(start // BLOCK_K + 3, last) * num_rows + row
        next_by_0, next_by_1 = tl.load(scale + at_0), tl.load(scale + at_1)
        next_less_0, next_less_1 = tl.load(zero + at_0), tl.load(zero + at_1)
        acc = tl.fma(mma(nibble_to_bfloat16(code, less_0, 0), b_0, nothing), by_0[:, None], acc)
        acc = tl.fma(mma(nibble_to_bfloat16(code, less_1, 1), b_1, nothing), by_1[:, None], acc)
        by_0, by_1, less_0, less_1 = next_by_0, next_by_1, next_less_0, next_less_1
    return acc


@triton.jit
def nibble_to_bfloat16(code, zero, HALF: tl.constexpr):
    """The low or the high half of each byte of code [N, K], less zero [N], exactly, four at a time.

    A nibble in the last places of 128 is 128 and it; taking off 128 and the zero point leaves no rounding.
    """
    if INTERP:
        half = (code >> 4) if HALF else (code & 15)
        return (half.to(tl.float32) - zero.to(tl.float32)[:, None]).to(tl.bfloat16)
    less = tl.broadcast_to((-128.0 - zero.to(tl.float32)).to(tl.bfloat16)[:, None], code.shape)
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 half, low, high, one;
        mov.b32 one, 0x3F803F80;
        """
        + ("shr.b32 half, $2, 4; and.b32 half, half, 0x0F0F0F0F;" if HALF else "and.b32 half, $2, 0x0F0F0F0F;")
        + """
        prmt.b32 low, half, 0x43434343, 0x4140;
        prmt.b32 high, half, 0x43434343, 0x4342;
        fma.rn.bf16x2 $0, low, one, $3;
        fma.rn.bf16x2 $1, high, one, $4;
        }""",
        "=r,=r,r,r,r",
        [code, less],
        dtype=tl.bfloat16,
        is_pure=True,
        pack=4,
    )


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
