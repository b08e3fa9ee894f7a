"""Slopes of heads: what attention's scores fall by from a position to the one before it, where nothing else says where
tokens are.

Called by the architecture files. Source: Press et al. 2021, Train short, test long. Does not know config.json.
"""

from __future__ import annotations

import math

#: Powers of two that the slopes of a model's heads span.
SPAN = 8.0


def slopes_of(heads: int) -> tuple[float, ...]:
    """Of BLOOM and Falcon: where heads are no power of two, those of the next lower one, then every other one of twice
    as many."""
    count = 2 ** math.floor(math.log2(heads))
    more = _even(2 * count, SPAN)[::2]
    return (*_even(count, SPAN), *more[: heads - count])


def slopes_of_mpt(heads: int, span: float) -> tuple[float, ...]:
    """Of MPT: where heads are no power of two, of the next higher one every other one, first those of even number."""
    count = 2 ** math.ceil(math.log2(heads))
    found = _even(count, span)
    return found if count == heads else (*found[1::2], *found[::2])[:heads]


def _even(count: int, span: float) -> tuple[float, ...]:
    return tuple(2.0 ** (-span * (i + 1) / count) for i in range(count))
