"""Temperature, min-p, top-k and top-p: one row of logits -> the tokens that may be drawn and their weights.

Called by sampler.py. Does not know requests, penalties or random numbers.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Row = npt.NDArray[np.float32]
Weights = npt.NDArray[np.float64]
Ids = npt.NDArray[np.intp]

_LOWEST = float(np.finfo(np.float32).min)
#: Weights (relative to the best token's 1) down to which top-p looks for its tokens before it takes all; from a
#: language model's row the first or second step usually holds the mass, from a flat row none does.
_LEVELS = (2.0**-7, 2.0**-14, 2.0**-28)
#: Chunk of the two-level search in draw(): near sqrt(V) for large vocabularies.
_CHUNK = 512


def truncated_weights(
    row: Row, peak: float, temperature: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> tuple[Ids | None, Weights]:
    """Keep the tokens that pass min-p, then top-k, then top-p; each sees the distribution the former left.

    Args:
        row: [V] logits; may hold -inf, no NaN or +inf. Not written to.
        peak: the largest of them, finite. temperature: above 0.
        top_k: keep the k largest and all that equal the k-th; 0 keeps all.
        top_p: keep the smallest set of most probable tokens that holds at least this mass; among equally
            probable ones the lowest id first.
        min_p: keep tokens at least min_p times as probable as the best.
    Returns: (ids ascending, or None for all V; their weights, proportional to probability, the best having 1).
    Cost: O(V); with top_p, sorting as many values as it takes to hold top_p of the mass.
    Source: Fan et al. 2018 (top-k), Holtzman et al. 2020 (top-p), Nguyen et al. 2024 (min-p); vLLM's order.
    """
    ids: Ids | None = None
    lowest = _lowest_logit(row, peak, temperature, top_k, min_p)
    if lowest is None:
        weights = _weights(row, peak, temperature)
    else:
        ids = np.flatnonzero(row >= lowest)
        weights = _weights(row[ids], peak, temperature)
    if min_p > 0.0:
        ids, weights = _keep(ids, weights, weights >= min_p)
    if top_p < 1.0:
        ids, weights = _keep(ids, weights, _nucleus(weights, top_p))
    return ids, weights


def draw(weights: Weights, fraction: float) -> int:
    """Index of the entry under which a fraction of the total weight falls, weights laid end to end in order.

    Args: weights: [n], not negative, not all 0. fraction: in [0, 1).
    Returns: an index whose weight is above 0.
    Cost: O(n) additions in chunks, since a running sum over all of them costs eight times as much.
    """
    starts = np.arange(0, weights.size, _CHUNK)
    ends = np.cumsum(np.add.reduceat(weights, starts))
    # fraction <= 1 - 2**-53, so the product rounds below the last end and the search stays inside.
    target = fraction * ends[-1]
    chunk = int(np.searchsorted(ends, target, side="right"))
    before = ends[chunk - 1] if chunk else 0.0
    inside = np.cumsum(weights[starts[chunk] : starts[chunk] + _CHUNK])
    # The sum inside may round below the chunk's own total: then the last entry with weight is meant.
    last = int(np.searchsorted(inside, inside[-1], side="left"))
    idx = int(np.searchsorted(inside, target - before, side="right"))
    return int(starts[chunk]) + min(idx, last)


def _weights(row: Row, peak: float, temperature: float) -> Weights:
    """exp((row - peak) / temperature) in float64: the best token weighs 1, nothing overflows."""
    weights = row.astype(np.float64)
    weights -= peak
    weights /= temperature
    return np.exp(weights, out=weights)


def _lowest_logit(row: Row, peak: float, temperature: float, top_k: int, min_p: float) -> np.float32 | None:
    """A logit under which no token passes top-k, or surely none min-p; None when both are off.

    Min-p and top-k may be taken together: both keep the best of what they see, so the one that keeps fewer decides.
    """
    lowest = _LOWEST
    if 0 < top_k < row.size:
        kth = row.size - top_k
        lowest = max(lowest, float(np.partition(row, kth)[kth]))
    elif min_p <= 0.0:
        return None
    if min_p > 0.0:
        # Lowered by more than rounding, so that the exact test on the weights decides.
        drop = temperature * math.log(min_p)
        bound = max(peak + drop - 1e-6 * (abs(peak) - drop), _LOWEST)
        lowest = max(lowest, bound)
    return np.float32(lowest)


def _nucleus(weights: Weights, top_p: float) -> npt.NDArray[np.bool_]:
    """Mask of the top-p set. Sums run from the largest weight down, so that the set does not depend on the level."""
    target = top_p * weights.sum()
    ranked = _ranked_until(weights, target)
    running = np.cumsum(ranked)
    num_kept = min(int(np.searchsorted(running, target, side="left")) + 1, ranked.size)
    smallest = ranked[num_kept - 1]
    mask: npt.NDArray[np.bool_] = weights > smallest
    ties = np.flatnonzero(weights == smallest)
    mask[ties[: num_kept - np.count_nonzero(mask)]] = True
    return mask


def _ranked_until(weights: Weights, target: float) -> Weights:
    """Weights in descending order, at least as far as their sum reaches target; equal ones are never parted."""
    for level in _LEVELS:
        large = weights[weights >= level]
        # A little more than target, so that no order of adding falls short of it.
        if large.sum() > target * (1.0 + 1e-9):
            return np.sort(large)[::-1]
    return np.sort(weights)[::-1]


def _keep(ids: Ids | None, weights: Weights, mask: npt.NDArray[np.bool_]) -> tuple[Ids, Weights]:
    places = np.flatnonzero(mask)
    return (places if ids is None else ids[places]), weights[places]
