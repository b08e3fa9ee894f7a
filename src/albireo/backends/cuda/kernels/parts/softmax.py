"""Softmax over parts of a context, merged in order; said once so that two kernels give the same bits.

Used inside attention. A part of the context is (m, l, acc): the largest score in units of log 2,
the sum of 2^(score - m), and the sum of 2^(score - m) times the values. A part that a row sees nothing of is
(-inf, 0, 0) and changes nothing, nor does starting from it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.arithmetic import INTERP

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def power_of_two(x):
    """2^x for float32 x, -inf gives 0; what is below 2^-126 may be 0. The one instruction that there is."""
    if INTERP:
        return tl.exp2(x)
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def shift_of(m):
    """What scores are lessened by before 2^x: the largest of them, and 0 where there are none."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit
def merge(total_m, total_l, total, m, l, acc):  # noqa: E741
    """total, then the part behind it. m, l: [M], acc: [M, D]. Roundings are spelled out: no compiler has a choice."""
    new_m = tl.maximum(total_m, m)
    shift = shift_of(new_m)
    keep, take = power_of_two(total_m - shift), power_of_two(m - shift)
    new_l = tl.fma(total_l, keep, l * take)
    wide_keep = tl.broadcast_to(keep[:, None], acc.shape)
    return new_m, new_l, tl.fma(total, wide_keep, acc * take[:, None])


@triton.jit
def with_sink(total_m, total_l, total, sink):
    """l and acc of a whole context and one more score, in units of log 2, that has no value."""
    m = tl.maximum(total_m, sink)
    keep = power_of_two(total_m - m)
    return tl.fma(total_l, keep, power_of_two(sink - m)), total * keep[:, None]


@triton.jit
def normalise(total_l, total):
    """[M, D] the weighted mean; 0 for a row that saw nothing."""
    return total * (1.0 / tl.where(total_l == 0.0, 1.0, total_l))[:, None]
