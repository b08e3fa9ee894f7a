"""Where boxes go: a layered drawing, top down, in which no two boxes and no wire and box meet.

Called by scene.py. Knows ranks, widths and wires; neither what they mean nor how they are drawn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

#: Boxes are named by anything that can be a key.
Key = Any


@dataclass(frozen=True, slots=True)
class Layout:
    """centers: x of each box. wires: for each wire the x at every rank it meets, its ends included."""

    centers: dict[Key, float]
    wires: list[tuple[float, ...]]


@dataclass(frozen=True, slots=True)
class _Lane:
    """Where a wire passes a rank between two boxes."""

    wire: int
    rank: int


def lay_out(
    boxes: Mapping[Key, tuple[int, float]],
    wires: Sequence[tuple[Key, Key]],
    sections: Sequence[range],
    *,
    gap: float,
    lane_width: float,
) -> Layout:
    """Place boxes of (rank, width) under what their wires come from, the boxes of each section around x = 0.

    Args:
        wires: each from a lower rank to a higher.
        sections: the ranks cut into runs, in order. A wire ends in the section it begins in, or in the next.

    Deterministic: depends on the order of boxes and wires only. Cost: O(n log n) of boxes and lanes.
    """
    ranks: dict[int, list[Key]] = {}
    width: dict[Key, float] = {}
    for key, (rank, each) in boxes.items():
        ranks.setdefault(rank, []).append(key)
        width[key] = each
    chains: list[list[Key]] = []
    for i, (source, target) in enumerate(wires):
        lanes = [_Lane(i, rank) for rank in range(boxes[source][0] + 1, boxes[target][0])]
        for lane in lanes:
            ranks.setdefault(lane.rank, []).append(lane)
            width[lane] = lane_width
        chains.append([source, *lanes, target])
    above: dict[Key, list[Key]] = {}
    for chain in chains:
        for upper, lower in pairwise(chain):
            above.setdefault(lower, []).append(upper)
    x: dict[Key, float] = {}
    for section in sections:
        placed: list[Key] = []
        for rank in section:
            wanted = {key: _mean([x[other] for other in above.get(key, ())]) for key in ranks.get(rank, ())}
            keys = sorted(wanted, key=wanted.__getitem__)
            places = spread([wanted[key] for key in keys], [width[key] for key in keys], gap)
            x.update(zip(keys, places, strict=True))
            placed += keys
        ends = [x[key] + side * width[key] / 2 for key in placed if key in boxes for side in (-1, 1)]
        middle = (min(ends) + max(ends)) / 2 if ends else 0.0
        for key in placed:
            x[key] -= middle
    return Layout({key: x[key] for key in boxes}, [tuple(x[key] for key in chain) for chain in chains])


def spread(wanted: Sequence[float], widths: Sequence[float], gap: float) -> list[float]:
    """Centers nearest to those wanted (least squares) that keep their order and a gap between boxes.

    Cost: O(n): runs that would overlap are joined and moved as one.
    """
    offsets = [0.0]
    for left, right in pairwise(widths):
        offsets.append(offsets[-1] + (left + right) / 2 + gap)
    runs: list[tuple[float, int]] = []
    for place, offset in zip(wanted, offsets, strict=False):
        mean, count = place - offset, 1
        while runs and runs[-1][0] > mean:
            before, many = runs.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        runs.append((mean, count))
    starts = [mean for mean, count in runs for _ in range(count)]
    return [start + offset for start, offset in zip(starts, offsets, strict=False)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
