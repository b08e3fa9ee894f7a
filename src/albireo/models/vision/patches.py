"""Patches of a tile as rows, and rows of patches put together: numpy on the host, for all families.

Rows are in reading order where nothing else is said: row by row of the grid, each from the left.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError, short

F32 = NDArray[np.float32]
Grid = tuple[int, int]
#: Of each layer of the KV cache, how many rows each of its sequences has; see tower.VisionTower.sequences().
Sequences = tuple[tuple[int, ...], ...]


def grid_of(height: int, width: int, patch_size: int) -> Grid:
    """Rows and columns of patches. Raises: InvariantError for a tile that patches do not fill."""
    if height < patch_size or width < patch_size or height % patch_size or width % patch_size:
        raise InvariantError(f"a tile of {height} x {width} pixels is not filled by patches of {patch_size}")
    return height // patch_size, width // patch_size


def merged_patches(height: int, width: int, patch_size: int, merge: int) -> int:
    """Patches of a tile of any size that blocks of merge x merge of them fill. Raises: InvariantError for another."""
    rows, cols = grid_of(height, width, patch_size * merge)
    return rows * cols * merge**2


def one_size(height: int, width: int, side: int, patch_size: int, spare: int = 0) -> int:
    """Patches of a tile, of a tower that reads tiles of side x side of them. Args: spare: pixels at the right and at
    the bottom that fill none. Raises: InvariantError for another."""
    size = side * patch_size + spare
    if (height, width) != (size, size):
        raise InvariantError(f"a tile of {height} x {width} pixels; this tower reads tiles of {size} x {size}")
    return side**2


def patch_rows(tile: F32, patch_size: int, is_channel_last: bool = False) -> F32:
    """[T, 3 * P * P] of a tile [H, W, 3]: channel, row, column, as a convolution's weight is flattened; or the channel
    last, as pixels lie in a tile."""
    if tile.ndim != 3 or tile.shape[2] != 3:
        raise InvariantError(f"a tile has shape {short(tile.shape)}; wanted [height, width, 3]")
    rows, cols = grid_of(tile.shape[0], tile.shape[1], patch_size)
    order = (0, 2, 1, 3, 4) if is_channel_last else (0, 2, 4, 1, 3)
    parts = tile.reshape(rows, patch_size, cols, patch_size, 3).transpose(order)
    return np.ascontiguousarray(parts.reshape(rows * cols, -1), np.float32)


def blocks(rows: NDArray[np.float32], grid: Grid, size: int) -> NDArray[np.float32]:
    """[rows / size, columns / size, size, size, E] of rows [T, E] or [rows, columns, E]: those of each block, in
    reading order."""
    height, width = grid
    if height % size or width % size:
        raise InvariantError(f"a grid of {height} x {width} patches is not filled by blocks of {size} x {size}")
    return rows.reshape(height // size, size, width // size, size, -1).transpose(0, 2, 1, 3, 4)


def in_blocks(rows: NDArray[np.float32], grid: Grid, size: int) -> F32:
    """[T, E] of rows in reading order: block by block."""
    return np.ascontiguousarray(blocks(rows, grid, size).reshape(grid[0] * grid[1], -1))


def patches_in_time(tile: F32, patch_size: int, frames: int) -> F32:
    """[T, 3 * frames * P * P] of a tile, in reading order, as the weight of a convolution in three directions is
    flattened: of [H, W, 3 * frames], frame by frame, or of [H, W, 3], of which all frames are alike."""
    is_several = tile.ndim == 3 and tile.shape[2] == 3 * frames
    parts = np.split(tile, frames, axis=2) if is_several else [tile] * frames
    rows = np.stack([patch_rows(part, patch_size).reshape(-1, 3, patch_size**2) for part in parts], axis=2)
    return rows.reshape(len(rows), -1)


def side_by_side(rows: F32, grid: Grid, size: int) -> F32:
    """[T / size², size² * E]: the rows of each block of size x size beside each other, in reading order."""
    cut = blocks(rows, grid, size)
    return np.ascontiguousarray(cut.reshape(cut.shape[0] * cut.shape[1], -1))
