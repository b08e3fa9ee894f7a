"""Softmax over parts of a context, merged in order; said once so that two kernels give the same bits.

Used inside attention. A part of the context is (m, l, acc): the largest score in units of log 2,
the sum of 2^(score - m), and the sum of 2^(score - m) times the values. A part that a row sees nothing of is
(-inf, 0, 0) and changes nothing, nor does starting from it.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def shift_of(m):
    """What scores are lessened by before 2^x: the largest of them, and 0 where there are none."""
    return tl.where(m == float("-inf"), 0.0, m)


@triton.jit
def merge(total_m, total_l, total, m, l, acc):  # noqa: E741
    """total, then the part behind it. m, l: [M], acc: [M, D]. Roundings are spelled out: no compiler has a choice."""
    new_m = tl.maximum(total_m, m)
    shift = shift_of(new_m)
    keep, take = tl.exp2(total_m - shift), tl.exp2(m - shift)
    new_l = tl.fma(total_l, keep, l * take)
    wide_keep = tl.broadcast_to(keep[:, None], acc.shape)
    return new_m, new_l, tl.fma(total, wide_keep, acc * take[:, None])


@triton.jit
def normalise(total_l, total):
    """[M, D] the weighted mean; 0 for a row that saw nothing."""
    return total * (1.0 / tl.where(total_l == 0.0, 1.0, total_l))[:, None]
