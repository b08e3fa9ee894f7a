"""Steps by searched clipping: each group gives up its largest weights where that makes the whole error smaller.

Called by methods of this folder and by compress/. An error is of weights, or of outputs where the second moments of
the inputs are given. Works in blocks of rows, so that what is held is a few times a block.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from albireo.encodings import Encoding
from albireo.quantization.encoded import F32
from albireo.quantization.methods.grid import SCALE_BITS, Grid, codes_of, errors_of, significant, to_groups

#: Parts of the range from the smallest to the largest weight that are tried; the whole of it comes first.
SHRINKS = (1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.76, 0.72, 0.68, 0.64, 0.6)
#: For eight bits there is less to win; a scale that was rounded down may cut an outlier, so one above is tried too.
WIDE_SHRINKS = (1.0, 1.004, 0.98, 0.95, 0.9, 0.85)
_ROWS = 256


def search_grid(
    weight: F32,
    encoding: Encoding,
    moments: F32 | None = None,
    dtype: str = "float32",
    shrinks: tuple[float, ...] | None = None,
) -> Grid:
    """The best grid for a matrix [N, K], of kind integer or float.

    Args:
        moments: [K, K] mean of x xᵀ over inputs x; the error is then that of the outputs, each group for itself. Or
            [K]: how much the square of an error counts.
        dtype: of the checkpoint the scales are to be stored in, exactly.
        shrinks: parts of the range that are tried; (1.0,) is plain rounding to nearest.
    """
    if shrinks is None:
        shrinks = SHRINKS if encoding.bits == 4 else WIDE_SHRINKS
    blocks = moment_blocks(moments, encoding)
    parts = [
        _search(to_groups(weight[start : start + _ROWS], encoding), encoding, blocks, dtype, shrinks)
        for start in range(0, len(weight), _ROWS)
    ]
    if len(parts) == 1:
        return parts[0]
    scale, zero, low, high = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("scale", "zero", "low", "high")
    )
    return Grid(encoding, scale, zero, low, high)


def moment_blocks(moments: F32 | None, encoding: Encoding) -> F32 | None:
    """[groups, size, size] the moments inside each group; [groups, size] where they are a diagonal, or where a group is
    the whole row, whose moments are taken as one."""
    if moments is None:
        return None
    k, size = len(moments), encoding.group
    if moments.ndim == 1:
        return np.asarray(to_groups(moments[None, :], encoding)[0], np.float32)
    if size is None:
        return np.asarray(np.diagonal(moments)[None, :], np.float32)
    count = encoding.num_groups(k)
    blocks = np.zeros((count, size, size), np.float32)
    for g in range(count):
        start, stop = g * size, min(k, (g + 1) * size)
        blocks[g, : stop - start, : stop - start] = moments[start:stop, start:stop]
    return blocks


def group_costs(errors: F32, blocks: F32 | None) -> F32:
    """[N, groups] of errors [N, groups, size]: their squares, or those of the outputs they lead to."""
    if blocks is None:
        return np.asarray(np.einsum("ngk,ngk->ng", errors, errors), np.float32)
    if blocks.ndim == 2:
        return np.asarray(np.einsum("ngk,ngk,gk->ng", errors, errors, blocks), np.float32)
    by_group = np.ascontiguousarray(errors.transpose(1, 0, 2))
    return np.asarray(np.einsum("gnk,gnk->ng", by_group @ blocks, by_group), np.float32)


def _search(groups: F32, encoding: Encoding, blocks: F32 | None, dtype: str, shrinks: tuple[float, ...]) -> Grid:
    bottom, top = np.minimum(groups.min(axis=2), 0), np.maximum(groups.max(axis=2), 0)
    best, cost = None, None
    for shrink in shrinks:
        grid = _grid(encoding, bottom * np.float32(shrink), top * np.float32(shrink), dtype)
        best, cost = _better(groups, grid, blocks, best, cost)
    assert best is not None and cost is not None
    if encoding.kind == "integer" and len(shrinks) > 1:
        best, _ = _better(groups, _refit(groups, best, dtype), blocks, best, cost)
    return best


def _grid(encoding: Encoding, bottom: F32, top: F32, dtype: str) -> Grid:
    """Steps from bottom to top, zero among them."""
    bits = SCALE_BITS[dtype]
    if encoding.bits == 8:
        largest = np.maximum(-bottom, top)
        is_float = encoding.kind == "float"
        scale = significant(largest / np.float32(448 if is_float else 127), bits)
        zero, low, high = (0, 0, 255) if is_float else (128, 1, 255)
        return Grid(encoding, scale, *(np.full(scale.shape, code, np.float32) for code in (zero, low, high)))
    scale = significant((top - bottom) / np.float32(15), bits)
    zeros = np.clip(np.rint(-bottom / np.where(scale > 0, scale, np.float32(np.inf))), 0, 15)
    return Grid(encoding, scale, zeros, np.zeros_like(scale), np.full(scale.shape, 15, np.float32))


def _refit(groups: F32, grid: Grid, dtype: str) -> Grid:
    """The same codes with the step that suits them best."""
    steps = codes_of(groups, grid) - grid.zero[:, :, None]
    square = np.einsum("ngk,ngk->ng", steps, steps)
    product = np.einsum("ngk,ngk->ng", steps, groups)
    fitted = np.where(square > 0, product / np.maximum(square, 1), grid.scale)
    return replace(grid, scale=significant(np.where(fitted > 0, fitted, grid.scale), SCALE_BITS[dtype]))


def _better(groups: F32, grid: Grid, blocks: F32 | None, best: Grid | None, cost: F32 | None) -> tuple[Grid, F32]:
    """Group by group the better of two grids, and its cost."""
    new = group_costs(errors_of(groups, grid), blocks)
    if best is None or cost is None:
        return grid, new
    wins = new < cost
    scale, zero = np.where(wins, grid.scale, best.scale), np.where(wins, grid.zero, best.zero)
    return replace(best, scale=scale, zero=zero), np.where(wins, new, cost)
