"""Matrices of a few rows and columns, in registers, such that rows and columns add up to one. Used by balance.py and
read_streams.py, which therefore give the same bits. Source: Sinkhorn and Knopp 1967."""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.graph.attention_op import NOTHING_SEEN

#: What is no number of a matrix, while the largest of its columns are sought.
LEAST = tl.constexpr(NOTHING_SEEN)


@triton.jit
def _divided(m, is_number, eps, AXIS: tl.constexpr):
    """By the sums of columns (AXIS 1) or of rows (2); what is no number of the matrix stays 0."""
    whole = tl.expand_dims(tl.sum(m, axis=AXIS) + eps, AXIS)
    return tl.where(is_number, tl.div_rn(m, tl.where(is_number, whole, 1.0)), 0.0)


@triton.jit
def balanced(m, is_number, eps, ROUNDS: tl.constexpr):
    """m: [any, n, n], LEAST where it is no number: the softmax of each column, plus eps, each row divided by its sum +
    eps; and ROUNDS - 1 times columns, then rows, likewise."""
    most = tl.expand_dims(tl.max(m, axis=1), 1)
    m = tl.where(is_number, tl.exp(m - most), 0.0)
    m = tl.where(is_number, _divided(m, is_number, 0.0, 1) + eps, 0.0)
    m = _divided(m, is_number, eps, 2)
    for _ in range(ROUNDS - 1):
        m = _divided(m, is_number, eps, 1)
        m = _divided(m, is_number, eps, 2)
    return m
