"""The bound that as many numbers of a row in memory reach as are wanted, found without a sort.

Used inside kernels/choose_keys.py and choose_blocks.py. Does not know what is chosen.
"""

from __future__ import annotations

import triton
import triton.language as tl

from albireo.backends.cuda.kernels.parts.ordering import NOTHING, order_of


@triton.jit
def bound_of_best(row, seen, count, TILE: tl.constexpr):
    """The order (ordering.py) of the count-th best of row[:seen], and how many of those that equal it are among them.

    count: at most seen. Halves the range between the lowest and the highest that are left; each round is a pass over
    the row, a TILE at a time, and ends at an order that is there.
    """
    lanes = tl.arange(0, TILE)
    high = tl.full((), NOTHING, tl.int32)
    low = tl.full((), 0x7FFFFFFF, tl.int32)
    for start in range(0, seen, TILE):
        order = order_of(tl.load(row + start + lanes, mask=start + lanes < seen, other=float("-inf")))
        high = tl.maximum(high, tl.max(order, axis=0))
        low = tl.minimum(low, tl.min(tl.where(start + lanes < seen, order, 0x7FFFFFFF), axis=0))
    # at least count lie at low or above it
    while low < high:
        middle = (low | high) - ((low ^ high) >> 1)
        found = tl.zeros((TILE,), tl.int32)
        least, most = tl.full((TILE,), high, tl.int32), tl.full((TILE,), low, tl.int32)
        for start in range(0, seen, TILE):
            is_there = start + lanes < seen
            order = order_of(tl.load(row + start + lanes, mask=is_there, other=0.0))
            is_above = is_there & (order >= middle)
            found += is_above.to(tl.int32)
            least = tl.minimum(least, tl.where(is_above, order, high))
            most = tl.maximum(most, tl.where(is_there & (order < middle), order, low))
        if tl.sum(found, axis=0) >= count:
            low = tl.min(least, axis=0)
        else:
            high = tl.max(most, axis=0)
    above = tl.zeros((TILE,), tl.int32)
    for start in range(0, seen, TILE):
        is_there = start + lanes < seen
        above += (is_there & (order_of(tl.load(row + start + lanes, mask=is_there, other=0.0)) > low)).to(tl.int32)
    return low, count - tl.sum(above, axis=0)
