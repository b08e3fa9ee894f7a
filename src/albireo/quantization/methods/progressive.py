"""Progressive int4: a whole number times one scale a channel as the step of each group.

Called by rounding.py, by compress/, and by readers, who find with as_progressive() what a checkpoint with plain scales
holds. (code - zero) * gamma is never beyond ±127, so that such a matrix can be multiplied as one of int8.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from albireo.encodings import Encoding, encoding
from albireo.quantization.encoded import F32, Encoded
from albireo.quantization.methods.grid import SCALE_BITS, Grid, errors_of, significant, to_groups
from albireo.quantization.methods.search import SHRINKS, group_costs, moment_blocks, search_grid

#: Gammas of the group with the widest step, one for each base that is tried.
_WIDEST = (15, 14, 13, 12, 11, 10, 9, 8)
_ROWS = 256
#: What a checkpoint with plain scales says in its header's metadata: the modules whose scales are such multiples,
#: separated by commas. Found out from scales and codes it would take a pass over all weights before any is wanted.
METADATA_KEY = "albireo.progressive"
_GAMMA_BITS = 4


def search_progressive(
    weight: F32,
    coding: Encoding,
    moments: F32 | None = None,
    dtype: str = "float32",
    shrinks: tuple[float, ...] = SHRINKS,
    widest: tuple[int, ...] = _WIDEST,
) -> Grid:
    """The best progressive grid for a matrix [N, K]; arguments as for search_grid().

    Steps are those of the plain grid, taken to the best of three whole multiples of a base; the base is the best of
    a few for each channel. gamma * base has as many bits as dtype holds, so plain scales hold it exactly.
    """
    plain = search_grid(weight, encoding(f"int4.g{coding.group}"), moments, dtype, shrinks)
    blocks = moment_blocks(moments, coding)
    parts = []
    for start in range(0, len(weight), _ROWS):
        rows = slice(start, start + _ROWS)
        parts.append(_search(to_groups(weight[rows], coding), plain, rows, coding, blocks, dtype, widest))
    names = ("scale", "zero", "low", "high", "gamma", "base")
    joined = [np.concatenate([getattr(part, name) for part in parts]) for name in names]
    return Grid(coding, *joined)


def as_plain(progressive: Encoded) -> Encoded:
    """The same numbers as int4.gG: gamma times the scale of the channel is the scale of the group."""
    assert progressive.gamma is not None
    scale = progressive.scale * progressive.gamma.astype(np.float32)
    return Encoded(encoding(f"int4.g{progressive.encoding.group}"), progressive.codes, scale, zero=progressive.zero)


def as_progressive(plain: Encoded) -> Encoded | None:
    """The same numbers as int4p.gG; None where scales of a channel are no small multiples of one number.

    Looks only at matrices of kind integer with 4-bit codes. Cost: 15 passes over the scales, one over the codes.
    """
    if plain.encoding.kind != "integer" or plain.encoding.bits != 4:
        return None
    smallest = np.where(plain.scale > 0, plain.scale, np.float32(np.inf)).min(axis=1, keepdims=True)
    smallest = np.where(np.isfinite(smallest), smallest, np.float32(1))
    base, gamma = smallest.copy(), np.zeros(plain.scale.shape, np.float32)
    found = np.zeros(len(plain.scale), np.bool_)
    for divisor in range(1, 16):
        tried = (smallest / np.float32(divisor)).astype(np.float32)
        multiple = np.rint(plain.scale / tried)
        # in float64 such a product is exact, so equal means equal
        is_equal = multiple.astype(np.float64) * tried == plain.scale
        fits = np.all((multiple <= 15) & is_equal, axis=1) & ~found
        base[fits], gamma[fits] = tried[fits], multiple[fits]
        found |= fits
    if not found.all():
        return None
    return _with_gamma(plain, base, gamma)


def _with_gamma(plain: Encoded, base: F32, gamma: F32) -> Encoded | None:
    """None where a code leaves the range of int8. In a group of scale 0 any gamma does, with codes at zero."""
    assert plain.zero is not None
    is_empty = gamma == 0
    gamma = np.where(is_empty, np.float32(1), gamma)
    group = plain.encoding.group
    assert group is not None
    columns = np.arange(plain.shape[1]) // group
    zero = plain.zero[:, columns]
    codes = np.where(is_empty[:, columns], zero, plain.codes)
    reach = np.abs(codes.astype(np.int16) - zero.astype(np.int16)) * gamma[:, columns]
    if reach.max(initial=0) > 127:
        return None
    coding = encoding(f"int4p.g{group}")
    return Encoded(coding, codes.astype(np.uint8), base, zero=plain.zero, gamma=gamma.astype(np.uint8))


def _search(
    groups: F32, plain: Grid, rows: slice, coding: Encoding, blocks: F32 | None, dtype: str, widest: tuple[int, ...]
) -> Grid:
    scale, zero = plain.scale[rows], plain.zero[rows]
    largest = scale.max(axis=1, keepdims=True)
    # a channel of zeros: any base does
    largest = np.where(largest > 0, largest, np.float32(1))
    best, cost = None, None
    for gamma in widest:
        base = significant(largest / np.float32(gamma), SCALE_BITS[dtype] - _GAMMA_BITS)
        grid, costs = _best_gammas(groups, scale, zero, base, coding, blocks)
        total = costs.sum(axis=1, keepdims=True)
        best, cost = (grid, total) if best is None or cost is None else _rowwise(best, cost, grid, total)
    assert best is not None
    return best


def _best_gammas(
    groups: F32, scale: F32, zero: F32, base: F32, coding: Encoding, blocks: F32 | None
) -> tuple[Grid, F32]:
    """The multiple of base nearest to each step, or one of its neighbours where that is better."""
    middle = np.rint(scale / base)
    best, cost = None, None
    for offset in (0, -1, 1):
        gamma = np.clip(middle + np.float32(offset), 1, 15).astype(np.float32)
        step = gamma * base
        zeros = np.clip(np.rint(zero * scale / step), 0, 15)
        reach = np.floor(np.float32(127) / gamma)
        low, high = np.maximum(zeros - reach, 0), np.minimum(zeros + reach, 15)
        grid = Grid(coding, step, zeros, low, high, gamma, base)
        costs = group_costs(errors_of(groups, grid), blocks)
        if best is None or cost is None:
            best, cost = grid, costs
            continue
        best = _merge(costs < cost, grid, best, base)
        cost = np.minimum(costs, cost)
    assert best is not None and cost is not None
    return best, cost


def _rowwise(best: Grid, cost: F32, grid: Grid, total: F32) -> tuple[Grid, F32]:
    wins = total < cost
    assert best.base is not None and grid.base is not None
    merged = _merge(np.broadcast_to(wins, grid.scale.shape), grid, best, np.where(wins, grid.base, best.base))
    return merged, np.minimum(total, cost)


def _merge(wins: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], new: Grid, old: Grid, base: F32) -> Grid:
    fields = {}
    for name in ("scale", "zero", "low", "high", "gamma"):
        fields[name] = np.where(wins, getattr(new, name), getattr(old, name))
    return replace(old, base=base, **fields)
