"""float32 numbers as whole numbers in the same order, and the k largest of a tile without sorting it.

Used inside kernels that pick the best of many: kernels/top.py, kernels/sample_*.py. NaN comes before all numbers, -0
equals 0. A key holds an entry's order and its place, so keys are unique and of equals the lowest place comes first.
"""

from __future__ import annotations

import triton
import triton.language as tl

#: Order of the lowest finite number.
LOWEST = tl.constexpr(-2139095040)
#: Below the order of every number: what padding has.
NOTHING = tl.constexpr(-(2**31))
#: Below every key.
NO_KEY = tl.constexpr(-(2**63))


@triton.jit
def order_of(x):
    """int32: larger for larger x."""
    x = tl.where(x == 0.0, 0.0, x)
    bits = x.to(tl.int32, bitcast=True)
    order = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return tl.where(x != x, 0x7FFFFFFF, order)


@triton.jit
def number_of(order):
    """The float32 that has this order; of 0x7FFFFFFF a NaN."""
    return (order ^ ((order >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def key_of(order, place):
    """int64: by order, then the lowest place first."""
    return (order.to(tl.int64) << 32) | (0xFFFFFFFF - place.to(tl.int64))


@triton.jit
def place_of(key):
    """int32: the place a key was made of."""
    return (0xFFFFFFFF - (key & 0xFFFFFFFF)).to(tl.int32)


@triton.jit
def least_of_best(entries, count, lowest):
    """The largest bound at or above which at least count of entries lie, or one at or above which exactly count do.

    entries: integers. lowest: a bound at or above which count of them lie. At most as many rounds as they have bits.
    """
    low, high = lowest, tl.max(entries, 0)
    while low < high:
        # between them, rounded up, without overflow
        middle = (low | high) - ((low ^ high) >> 1)
        found = tl.sum((entries >= middle).to(tl.int32), 0)
        low = tl.where(found >= count, middle, low)
        high = tl.where(found > count, high, tl.where(found == count, middle, middle - 1))
    return low


@triton.jit
def reaching(entries, weights, target, low):
    """The largest bound at or above which entries weigh target or more together.

    entries: int32. weights: whole numbers, at least 0. low: a bound at or above which they weigh as much. Each round
    ends at an entry, so there are about as many as the logarithm of the number of different ones.
    """
    high = tl.max(entries, 0)
    while low < high:
        middle = (low | high) - ((low ^ high) >> 1)
        is_above = entries >= middle
        if tl.sum(tl.where(is_above, weights, 0), 0) >= target:
            low = tl.min(tl.where(is_above, entries, high), 0)
        else:
            high = tl.max(tl.where(is_above, low, entries), 0)
    return low
