"""The chain of additions that a sum of a linear is: what matmul_smallm and matmul have in common, and so their bits.

Used inside their kernels. Codes of e4m3 become the bfloat16 numbers that they are, and are multiplied as those; codes
of 4 bits, less their zero points, are whole numbers that bfloat16 holds; floats of 4 bits: chain_fp4.py. All are read
as words (matrix.py): a word has one code of each of several planes, a plane being 32 inputs in a row, so that a
register of the matrix unit is made of two registers by a byte permutation, and 16 bytes are read at once. Where x is
e4m3, too: chain_e4m3.py.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP, awaited, mma
from albireo.backends.cuda.kernels.parts.chain_fp4 import chain_of_fp4
from albireo.backends.cuda.kernels.parts.operands import inputs_of, words_of
from albireo.backends.cuda.matrix import PLANE

#: How a weight is scaled: not at all, each channel, each channel for GROUP inputs, or for groups of 4 bits: integers,
#: or floats, whose channels have a scale besides.
UNSCALED, CHANNELS, GROUPS, NIBBLES, MICROSCALED = 0, 1, 2, 3, 4
#: Inputs that share a scale, of e4m3.
GROUP = 128
_CHANNELS, _GROUPS, _NIBBLES, _MICROSCALED, _GROUP, _PLANE = (
    tl.constexpr(CHANNELS),
    tl.constexpr(GROUPS),
    tl.constexpr(NIBBLES),
    tl.constexpr(MICROSCALED),
    tl.constexpr(GROUP),
    tl.constexpr(PLANE),
)


@triton.jit
def width_of(weight, BLOCK_K: tl.constexpr):
    """Columns of the pointers that chain() takes: of words a plane's, else all of a step."""
    WIDTH: tl.constexpr = _PLANE if weight.dtype.element_ty == tl.int32 else BLOCK_K
    return tl.arange(0, WIDTH)


@triton.jit
def chain(
    weight_at, x_at, at_k, is_token, first, end, k, scale, zero, row, num_rows,
    SCALED: tl.constexpr, NIBBLE_GROUP: tl.constexpr, EVEN_K: tl.constexpr,
    ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
    first_row=0, first_token=0, TMA: tl.constexpr = False, ARE_MANY: tl.constexpr = False,
    GATHERED: tl.constexpr = False,
):  # fmt: skip
    """[ROWS, TOKENS] sums over k from first to end, ascending.

    weight_at, x_at: pointers [ROWS, W] and [W, TOKENS] of k = 0, of the W columns at_k. is_token: [1, TOKENS], what is
    read of x at all; the rest are zeros. With TMA they are descriptors of blocks [ROWS, W] and [TOKENS, W], which are
    read from first_row and first_token on; at_k and is_token are not used, and first is less than end. scale: [groups,
    num_rows] with GROUPS and NIBBLES, for which each group is a chain from zero whose sum, times its scale, is added to
    those before. zero: as scale, uint8, with NIBBLES; with MICROSCALED the scales of groups, of which numbers are made
    before they are multiplied. ARE_MANY: tokens, so that arithmetic is to be short, not latency.
    GATHERED: with TMA, rows of x lie anywhere: x_at, at_k and is_token are as without it.
    """
    X_TMA: tl.constexpr = TMA and not GATHERED
    if TMA:
        tl.assume(first < end)  # a loop that may not run makes ptxas wait for each product
    element: tl.constexpr = weight_at.dtype if TMA else weight_at.dtype.element_ty
    if SCALED == _NIBBLES:
        return _chain_of_nibbles(
            weight_at, x_at, at_k, is_token, first, end, k, scale, zero, row, num_rows, NIBBLE_GROUP, EVEN_K, ROWS,
            TOKENS, BLOCK_K, first_row, first_token, TMA, X_TMA, ARE_MANY,
        )  # fmt: skip
    elif SCALED == _MICROSCALED:
        return chain_of_fp4(
            weight_at, x_at, at_k, is_token, first, end, k, zero, row, num_rows, NIBBLE_GROUP, EVEN_K, ROWS, TOKENS,
            BLOCK_K, first_row, first_token, TMA, X_TMA, ARE_MANY,
        )  # fmt: skip
    elif element == tl.int32:
        return _chain_of_e4m3(
            weight_at, x_at, at_k, is_token, first, end, k, scale, row, num_rows, SCALED, EVEN_K, ROWS, TOKENS, BLOCK_K,
            first_row, first_token, TMA, X_TMA,
        )  # fmt: skip
    else:
        return _chain_of_numbers(
            weight_at, x_at, at_k, is_token, first, end, k, EVEN_K, ROWS, TOKENS, BLOCK_K, first_row, first_token, TMA,
            X_TMA,
        )  # fmt: skip


@triton.jit
def times_channels(sums, scale, row, SCALED: tl.constexpr):
    """[ROWS, TOKENS] whole sums of chain(), times the scales of channels where these are behind it."""
    if SCALED == _CHANNELS or SCALED == _MICROSCALED:  # noqa: SIM109
        sums *= tl.load(scale + row)[:, None]
    return sums


@triton.jit
def _chain_of_numbers(
    weight_at, x_at, at_k, is_token, first, end, k,
    EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
    first_row, first_token, TMA: tl.constexpr, X_TMA: tl.constexpr,
):  # fmt: skip
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    for start in range(first, end, BLOCK_K):
        if TMA:
            a = weight_at.load([first_row, start])
        elif EVEN_K:
            a = tl.load(weight_at + start)
        else:
            a = tl.load(weight_at + start, mask=(at_k < k - start)[None, :], other=0.0)
        acc = mma(a, inputs_of(x_at, at_k, is_token, start, k, first_token, EVEN_K, X_TMA), acc)
    return acc


@triton.jit
def _chain_of_e4m3(
    weight_at, x_at, at_k, is_token, first, end, k, scale, row, num_rows,
    SCALED: tl.constexpr, EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
    first_row, first_token, TMA: tl.constexpr, X_TMA: tl.constexpr,
):  # fmt: skip
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    # a scale is on its way while the group before is computed
    by = tl.load(scale + tl.minimum(first, k - 1) // _GROUP * num_rows + row) if SCALED == _GROUPS else 0.0
    for start in range(first, end, BLOCK_K):
        for block in tl.static_range(BLOCK_K // _GROUP):
            at = start + block * _GROUP
            if TMA or EVEN_K or BLOCK_K == _GROUP:
                word = words_of(weight_at, at // 4, first_row, TMA)
            else:
                word = tl.load(weight_at + at // 4, mask=(at_k * 0 + at < k)[None, :], other=0)
            sums = tl.zeros((ROWS, TOKENS), tl.float32) if SCALED == _GROUPS else acc
            for plane in tl.static_range(4):
                b = inputs_of(x_at, at_k, is_token, at + plane * _PLANE, k, first_token, EVEN_K, X_TMA)
                sums = mma(e4m3_to_bfloat16(word, plane), b, sums)
                if TMA:
                    # else codes are widened beside this product, and ptxas waits for each instruction of it
                    sums = awaited(sums)
            if SCALED == _GROUPS:
                next_group = tl.minimum(at // _GROUP + 1, (k - 1) // _GROUP)
                next_by = tl.load(scale + next_group * num_rows + row)
                acc = tl.fma(sums, by[:, None], acc)  # type: ignore[index]
                by = next_by
            else:
                acc = sums
    return acc


@triton.jit
def _chain_of_nibbles(
    weight_at, x_at, at_k, is_token, first, end, k, scale, zero, row, num_rows,
    GROUP_K: tl.constexpr, EVEN_K: tl.constexpr, ROWS: tl.constexpr, TOKENS: tl.constexpr, BLOCK_K: tl.constexpr,
    first_row, first_token, TMA: tl.constexpr, X_TMA: tl.constexpr, ARE_MANY: tl.constexpr,
):  # fmt: skip
    """A step is one word of each row and plane, 256 inputs: 2, 4 or 8 groups, two of which follow each other."""
    acc = tl.zeros((ROWS, TOKENS), tl.float32)
    last = (k - 1) // GROUP_K
    # numbers of two groups are on their way while the two before are computed; of a group behind the last one those of
    # the last, times zeros
    at_0 = tl.minimum(first // GROUP_K, last) * num_rows + row
    at_1 = tl.minimum(first // GROUP_K + 1, last) * num_rows + row
    by_0, by_1, less_0, less_1 = (
        tl.load(scale + at_0),
        tl.load(scale + at_1),
        tl.load(zero + at_0),
        tl.load(zero + at_1),
    )
    for start in range(first, end, BLOCK_K):
        # a multiple, said here: else 8 bytes are loaded at a time
        word = words_of(weight_at, tl.multiple_of(start // 8, 4), first_row, TMA)
        for pair in tl.static_range(BLOCK_K // (2 * GROUP_K)):
            group = start // GROUP_K + 2 * pair
            at_0 = tl.minimum(group + 2, last) * num_rows + row
            at_1 = tl.minimum(group + 3, last) * num_rows + row
            next_by_0, next_by_1 = tl.load(scale + at_0), tl.load(scale + at_1)
            if ARE_MANY:
                # loaded here they come in the layout of the matrix unit; else a would go through shared memory
                less_0 = tl.load(zero + tl.minimum(group, last) * num_rows + row)
                less_1 = tl.load(zero + tl.minimum(group + 1, last) * num_rows + row)
                next_less_0, next_less_1 = less_0, less_1
            else:
                next_less_0, next_less_1 = tl.load(zero + at_0), tl.load(zero + at_1)
            for half in tl.static_range(2):
                less = (-128.0 - (less_1 if half else less_0).to(tl.float32)).to(tl.bfloat16)
                sums = tl.zeros((ROWS, TOKENS), tl.float32)
                for plane in tl.static_range(GROUP_K // _PLANE):
                    at = start + (2 * pair + half) * GROUP_K + plane * _PLANE
                    a = nibble_to_bfloat16(word, less, (2 * pair + half) * (GROUP_K // _PLANE) + plane)
                    sums = mma(a, inputs_of(x_at, at_k, is_token, at, k, first_token, EVEN_K, X_TMA), sums)
                acc = tl.fma(sums, (by_1 if half else by_0)[:, None], acc)
            by_0, by_1, less_0, less_1 = next_by_0, next_by_1, next_less_0, next_less_1
    return acc


@triton.jit
def nibble_to_bfloat16(word, less, PLANE_AT: tl.constexpr):
    """Codes of a plane in words [N, W], and less [N], bfloat16, which is -128 less the zero point: exactly.

    A nibble in the last places of 128 is 128 and it; adding less leaves no rounding.
    """
    if INTERP:
        return (((word >> (4 * PLANE_AT)) & 15).to(tl.float32) + 128.0 + less.to(tl.float32)[:, None]).to(tl.bfloat16)
    BYTE: tl.constexpr = PLANE_AT // 2
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 x, one;
        mov.b32 one, 0x3F803F80;
        prmt.b32 x, $1, $2, """
        + ("0x0400;" if BYTE == 0 else "0x0501;" if BYTE == 1 else "0x0602;" if BYTE == 2 else "0x0703;")
        + ("shr.b32 x, x, 4;" if PLANE_AT % 2 else "")
        + """
        lop3.b32 x, x, 0x000F000F, 0x43004300, 0xEA;
        fma.rn.bf16x2 $0, x, one, $3;
        }""",
        "=r,r,r,r",
        [word, tl.broadcast_to(less[:, None], word.shape)],
        dtype=tl.bfloat16,
        is_pure=True,
        pack=2,
    )


@triton.jit
def e4m3_to_bfloat16(word, PLANE_AT: tl.constexpr):
    """The numbers of a plane's e4m3fn codes in words, none of them NaN, on every GPU.

    Their bits in a bfloat16's places stand for 2^-120 of them, small ones too.
    """
    if INTERP:
        bits = word >> (8 * PLANE_AT)
        bits = ((bits & 0x7F) << 20) | ((bits & 0x80) << 24)
        return (bits.to(tl.float32, bitcast=True) * 1.329227995784916e36).to(tl.bfloat16)
    return tl.inline_asm_elementwise(
        """{
        .reg .b32 x, y, scale, none;
        mov.b32 scale, 0x7B807B80;
        mov.b32 none, 0x80008000;
        prmt.b32 x, $1, $2, """
        + ("0x4000;" if PLANE_AT == 0 else "0x5010;" if PLANE_AT == 1 else "0x6020;" if PLANE_AT == 2 else "0x7030;")
        + """
        shr.b32 y, x, 4;
        and.b32 y, y, 0x07F007F0;
        lop3.b32 x, x, 0x80008000, y, 0xEA;
        fma.rn.bf16x2 $0, x, scale, none;
        }""",
        "=r,r,r",
        [word],
        dtype=tl.bfloat16,
        is_pure=True,
        pack=2,
    )
