"""Where patches are: the table of learned positions resampled to a grid, and rotations by row and column.

Called by the families, in numpy on the host, in float32 and with the formulas of transformers. Not by matrix products
of BLAS, whose sums depend on how many threads it has.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError, WeightMismatch
from albireo.json_file import Fields
from albireo.models.vision.patches import F32, Grid

Ints = NDArray[np.int64]


#: Bases of frequencies.
_THETAS = (1.0, 1e12)


def held(table: F32 | None, name: str) -> F32:
    """What hold() kept. Raises: InvariantError before it did."""
    if table is None:
        raise InvariantError(f"{name} is read before it is held")
    return table


def checked_table(tensors: Mapping[str, F32], name: str, rows: int, width: int) -> F32:
    """A table of positions [rows, width]. Raises: WeightMismatch for one of another shape."""
    table, wanted = tensors[name], (rows, width)
    if table.shape != wanted:
        raise WeightMismatch(f"{name} is {list(table.shape)}, config.json implies {list(wanted)}")
    return table


def corner_weights(count: int, side: int) -> F32:
    """[count, side] weights by which count points, the first and last at the ends of a row of side, are between its
    entries."""
    points = np.arange(count, dtype=np.float32) * np.float32(side - 1) / np.float32(max(count - 1, 1))
    return _hats(points, side, np.float32(1.0))


def smooth_weights(count: int, side: int) -> F32:
    """[count, side] weights by which the centers of count equal parts of a row of side are between its entries; where
    parts are larger than entries, all that a part covers count."""
    scale = np.float32(side) / np.float32(count)
    points = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    weights = _hats(points, side, max(scale, np.float32(1.0)))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def center_weights(count: int, side: int) -> F32:
    """[count, side] weights by which the centers of count equal parts of a row of side are between its entries, of the
    two next to each; beyond an end there is its entry."""
    points = (np.arange(count, dtype=np.float32) + np.float32(0.5)) * np.float32(side) / np.float32(count)
    inside = np.clip(points - np.float32(0.5), np.float32(0), np.float32(side - 1))
    return _hats(inside, side, np.float32(1))


def cubic_weights(count: int, side: int) -> F32:
    """[count, side] weights by which the centers of count equal parts of a row of side are between its entries, of four
    of which each is a cubic; beyond an end there is its entry. Source: Keys 1981, with a slope of -0.75."""
    centers = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count) * np.float32(2) - np.float32(1)
    points = ((centers + np.float32(1)) * np.float32(side) - np.float32(1)) / np.float32(2)
    before = np.floor(points)
    weights = np.zeros((count, side), np.float32)
    for step in range(-1, 3):
        near = np.clip(before.astype(np.int64) + step, 0, side - 1)
        weights[np.arange(count), near] += _cubic(np.abs(points - before - np.float32(step)))
    return weights


def smooth_cubic_weights(count: int, side: int) -> F32:
    """[count, side] weights by which the centers of count equal parts of a row of side are between its entries, of a
    cubic; where parts are larger than entries, of one that is as much wider. Source: Keys 1981, with a slope of -0.5;
    what is beyond an end counts for nothing."""
    scale = np.float32(side) / np.float32(count)
    wide = max(scale, np.float32(1))
    centers = scale * (np.arange(count, dtype=np.float32) + np.float32(0.5))
    apart = np.abs(np.arange(side, dtype=np.float32) - centers[:, None] + np.float32(0.5)) / wide
    distances = np.asarray(apart, np.float32)
    weights = np.where(distances < 2, _cubic(distances, -0.5), np.float32(0))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def stretched(count: int, own: int, side: int) -> Ints:
    """[count] entries of a row of side over which own are stretched; those behind them have the last. As transformers
    finds them, in float32: at sides of published towers, as at others torch rounds by what the processor can do."""
    step = 1.0 / side
    # as many as fit, rounded as there: at some sides one too many, which nothing reaches
    bounds = (step + step * np.arange(math.ceil((1.0 - step) / step))).astype(np.float32)
    shares = np.arange(count, dtype=np.float32) * (np.float32(1) / np.float32(own))
    found: Ints = np.searchsorted(bounds, np.minimum(shares, np.float32(1.0 - 1e-6)), side="right")
    return found


def _cubic(distances: F32, slope_at_one: float = -0.75) -> F32:
    """Of each of four neighbours, by how far it is."""
    slope, one = np.float32(slope_at_one), np.float32(1)
    inner = ((slope + 2 * one) * distances - (slope + 3 * one)) * distances * distances + one
    outer = ((slope * distances - 5 * slope) * distances + 8 * slope) * distances - 4 * slope
    return np.where(distances <= one, inner, outer).astype(np.float32)


def _hats(points: F32, side: int, support: np.float32) -> F32:
    distances = np.abs(np.arange(side, dtype=np.float32) - points[:, None]) / support
    return np.asarray(np.maximum(np.float32(1.0) - distances, np.float32(0.0)), np.float32)


def resampled(table: F32, of_rows: F32, of_columns: F32) -> F32:
    """[rows, columns, E] of a table [side * side, E], or of one whose sides differ. Args: of_rows, of_columns: weights
    [count, side] of each axis."""
    high, wide = of_rows.shape[1], of_columns.shape[1]
    lines = _weighted(table.reshape(high, -1), of_rows).reshape(len(of_rows), wide, -1)
    return _weighted(lines.transpose(1, 0, 2), of_columns).transpose(1, 0, 2)


def _weighted(entries: NDArray[np.float32], weights: F32) -> F32:
    """[count, ...] sums of entries [side, ...], of those few whose weights are not 0."""
    side = len(entries)
    first = (weights != 0).argmax(axis=1)
    last = side - 1 - (weights[:, ::-1] != 0).argmax(axis=1)
    shape = (len(weights), *(1,) * (entries.ndim - 1))
    total = np.zeros((len(weights), *entries.shape[1:]), np.float32)
    for step in range(int((last - first).max()) + 1):
        place = np.minimum(first + step, side - 1)
        # behind the last entry of the table nothing is added
        weight = np.where(first + step < side, weights[np.arange(len(weights)), place], np.float32(0.0))
        total += entries[place] * weight.reshape(shape).astype(np.float32)
    return total


def rotations(places: Ints, of_rows: F32, of_columns: F32) -> F32:
    """[T, D] cosines, then sines: the first pairs of channels turn with a patch's row, the others with its column.

    Args: places: see places(). of_rows, of_columns: frequencies, D / 4 each.
    """
    rows, columns = (places[..., axis].reshape(-1, 1).astype(np.float32) for axis in (0, 1))
    angles = np.concatenate([rows * of_rows, columns * of_columns], axis=1)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def taking_turns(places: Ints, of_axis: F32) -> F32:
    """[T, D] cosines, then sines: of pairs of channels every other one turns with the first number of a patch's place,
    the ones between with the second.

    Args: places: [..., 2]. of_axis: frequencies of either, D / 4.
    """
    angles = places.reshape(-1, 1, 2).astype(np.float32) * of_axis[:, None]
    angles = angles.reshape(len(angles), -1)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def places(grid: Grid) -> Ints:
    """[rows, columns, 2] row and column of each patch."""
    return np.stack(np.meshgrid(np.arange(grid[0]), np.arange(grid[1]), indexing="ij"), axis=-1)


def axial_theta(fields: Fields, default: float = 10000.0) -> float:
    """The base of frequencies, in the form since transformers 5 or the one before. Args: default: where none is said.

    Raises: UnsupportedModel for rotations of another kind.
    """
    inner = fields.table("rope_parameters")
    if inner is None:
        return fields.number("rope_theta", *_THETAS, default)
    rope = Fields(inner, f"{fields.where}: rope_parameters")
    kind = rope.text("rope_type", "axial")
    if kind not in ("axial", "default"):
        rope.unsupported("rope_type", kind, "supported: axial")
    theta = rope.number("rope_theta", *_THETAS, default)
    rope.refuse_unread((), {})
    return theta
