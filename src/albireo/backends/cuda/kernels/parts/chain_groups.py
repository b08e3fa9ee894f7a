"""Sums of token rows and weights whose inputs share a scale in groups of G, as matrix units multiply codes of 8 bits.

Used inside kernels/matmul_groups.py, whose contract says what is added in which order, and moe_groups.py, which
therefore gives a pair of a token and an expert the same bits.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP, mma
from albireo.backends.cuda.kernels.parts.microscaled import from_gamma, twice_e2m1
from albireo.backends.cuda.matrix import PLANE
from albireo.backends.cuda.tokens import SUM_STEP

#: How codes become numbers; see encodings.py.
KINDS = {"integer": 0, "affine": 1, "progressive": 2, "microscaled": 3}
_INTEGER, _AFFINE, _PROGRESSIVE, _MICROSCALED = (tl.constexpr(code) for code in KINDS.values())
_SUM_STEP, _PLANE = tl.constexpr(SUM_STEP), tl.constexpr(PLANE)


@triton.jit
def chain_of_groups(
    codes, codes_stride, x, x_stride, sums_at, row, token, k, num_rows, scale, zero, offset, gamma,
    KIND: tl.constexpr, NIBBLES: tl.constexpr, GROUP: tl.constexpr, EVEN_K: tl.constexpr, ROWS: tl.constexpr,
    TOKENS: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """[ROWS, TOKENS] float32, what a token's scale is still to multiply.

    row: [ROWS] of weights; token: [TOKENS] int64, of rows of x; sums_at: [TOKENS] where the sums of their codes begin.
    """
    at = tl.arange(0, _PLANE if NIBBLES else STEP)
    codes_at = codes + row.to(tl.int64)[:, None] * codes_stride + at[None, :]
    x_at = x + token[None, :] * x_stride + at[:, None]
    total = tl.zeros((ROWS, TOKENS), tl.int32 if KIND == _PROGRESSIVE else tl.float32)
    COUNT: tl.constexpr = STEP // GROUP  # groups of a step
    last_group = tl.cdiv(k, GROUP) - 1
    # numbers of a group are on their way while the group before is computed
    by, less = _of_group(scale, zero, offset, gamma, 0, last_group, num_rows, row, KIND, NIBBLES, GROUP)
    for step in range(0, tl.cdiv(k, STEP)):
        if NIBBLES:  # filled up to whole steps
            code = tl.load(codes_at + step * _PLANE)
        elif EVEN_K:
            code = tl.load(codes_at + step * STEP)
        else:
            code = tl.load(codes_at + step * STEP, mask=(at < k - step * STEP)[None, :], other=0)
        for group in tl.static_range(COUNT):
            first = step * STEP + group * GROUP
            ahead = step * COUNT + group + 1
            next_by, next_less = _of_group(
                scale, zero, offset, gamma, ahead, last_group, num_rows, row, KIND, NIBBLES, GROUP
            )
            sums = tl.zeros((ROWS, TOKENS), tl.int32)
            if NIBBLES and GROUP < _PLANE:  # half a plane; what is not of it counts as zero
                b = _inputs(x_at, at, step * STEP + group * GROUP // _PLANE * _PLANE, k, EVEN_K)
                is_half = (group * GROUP // _PLANE * _PLANE + at) // GROUP == group
                whole = _whole(code, group * GROUP // _PLANE, KIND)
                sums = mma(tl.where(is_half[None, :], whole, 0).to(tl.int8), b, sums)
            elif NIBBLES:
                for plane in tl.static_range(GROUP // _PLANE):
                    b = _inputs(x_at, at, first + plane * _PLANE, k, EVEN_K)
                    sums = mma(_whole(code, group * (GROUP // _PLANE) + plane, KIND), b, sums)
            else:
                b = _inputs(x_at, at, step * STEP, k, EVEN_K)
                of_group = tl.where((at // GROUP == group)[None, :], code, 0).to(tl.int8) if COUNT > 1 else code
                sums = mma(of_group, b, sums)
            total = _add(total, sums, _sum_of_codes(sums_at, first, GROUP, k), by, less, KIND, NIBBLES)
            by, less = next_by, next_less
    result = total
    if KIND == _PROGRESSIVE:
        result = total.to(tl.float32) * tl.load(scale + row)[:, None]
    elif KIND == _MICROSCALED:
        result = total * (tl.load(scale + row) * 0.5)[:, None]
    return result


@triton.jit
def _of_group(
    scale, zero, offset, gamma, group, last, num_rows, row,
    KIND: tl.constexpr, NIBBLES: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """What a group multiplies by, and what it takes off or adds; of a group behind the last that of the last, whose
    codes are zeros."""
    at = tl.minimum(group, last) * num_rows + row
    if KIND == _PROGRESSIVE:
        by = tl.load(gamma + at)
    elif KIND == _MICROSCALED:
        by = from_gamma(tl.load(gamma + at), GROUP)
    else:
        by = tl.load(scale + at)
    if KIND == _AFFINE:
        less = tl.load(offset + at)
    elif NIBBLES and KIND != _MICROSCALED:
        less = tl.load(zero + at)
    else:
        less = by
    return by, less


@triton.jit
def _add(total, sums, x_sum, by, less, KIND: tl.constexpr, NIBBLES: tl.constexpr):
    """total and what a group adds to it. sums: of products; x_sum: of x's codes; by, less: _of_group()."""
    if KIND == _PROGRESSIVE:
        sums -= less.to(tl.int32)[:, None] * x_sum.to(tl.int32)[None, :]
        total += by.to(tl.int32)[:, None] * sums
    else:
        value = sums.to(tl.float32)
        if KIND == _INTEGER and NIBBLES:
            value = tl.fma(less.to(tl.float32)[:, None], -x_sum[None, :], value)
        total = tl.fma(value, by[:, None], total)
        if KIND == _AFFINE:
            total = tl.fma(less[:, None], x_sum[None, :], total)
    return total


@triton.jit
def _sum_of_codes(sums, first, GROUP: tl.constexpr, k):
    """Of each token the sum of a group's codes; see sum_at() in csrc's tokens.h."""
    before = tl.cdiv(tl.minimum(first, k), _SUM_STEP)
    end = tl.cdiv(tl.minimum(first + GROUP, k), _SUM_STEP)
    return tl.load(sums + end) - tl.load(sums + before)


@triton.jit
def _inputs(x_at, at, first, k, EVEN_K: tl.constexpr):
    if EVEN_K:
        return tl.load(x_at + first)
    return tl.load(x_at + first, mask=(at < k - first)[:, None], other=0)


@triton.jit
def _whole(word, PLANE_AT: tl.constexpr, KIND: tl.constexpr):
    code = _nibble(word, PLANE_AT)
    return twice_e2m1(code) if KIND == _MICROSCALED else code


@triton.jit
def _nibble(word, PLANE_AT: tl.constexpr):
    """Codes of a plane in words, four at a time."""
    if INTERP:
        return ((word >> (4 * PLANE_AT)) & 15).to(tl.int8)
    BYTE: tl.constexpr = PLANE_AT // 2
    # bytes of two words, then of all four
    PICK: tl.constexpr = "0x0040" if BYTE == 0 else "0x0051" if BYTE == 1 else "0x0062" if BYTE == 2 else "0x0073"
    return tl.inline_asm_elementwise(
        "{ .reg .b32 t, u; prmt.b32 t, $1, $2, "
        + PICK
        + "; prmt.b32 u, $3, $4, "
        + PICK
        + "; prmt.b32 t, t, u, 0x5410;"
        + (" shr.b32 t, t, 4;" if PLANE_AT % 2 else "")
        + " and.b32 $0, t, 0x0F0F0F0F; }",
        "=r,r,r,r,r",
        [word],
        dtype=tl.int8,
        is_pure=True,
        pack=4,
    )
