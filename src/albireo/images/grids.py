"""Grids of square tiles that pictures are cut into: which there may be, which is nearest to a picture, and the cut.

Called by the families that choose a grid by its proportions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

#: Far more than any picture is cut into.
MAX_TILES = 64
#: Columns and rows of tiles.
Grid = tuple[int, int]


def grids(fewest: int, most: int) -> tuple[Grid, ...]:
    """All of fewest to most tiles, those of fewer tiles first."""
    sides = range(1, most + 1)
    found = [(columns, rows) for columns in sides for rows in sides if fewest <= columns * rows <= most]
    return tuple(sorted(found, key=math.prod))


def nearest_grid(some: Sequence[Grid], height: int, width: int, side: int) -> Grid:
    """The one whose proportions are nearest to a picture's; of equal ones the largest less than twice the picture; one
    tile where there is none. Args: side: of a tile."""
    best, least = (1, 1), math.inf
    for columns, rows in some:
        difference = abs(width / height - columns / rows)
        is_filled = height * width > 0.5 * side**2 * columns * rows
        if difference < least or (difference == least and is_filled):
            best, least = (columns, rows), difference
    return best


def least_enlarged(some: Sequence[Grid], height: int, width: int, side: int) -> Grid:
    """The one that a picture need be enlarged for the least, until it fills either of its directions; where all are
    smaller, the one it is made smaller for the least. Of equal ones the first. Args: side: of a tile."""
    scales = [min(columns * side / width, rows * side / height) for columns, rows in some]
    enlarged = [scale for scale in scales if scale >= 1]
    return some[scales.index(min(enlarged) if enlarged else max(scales))]


def cut_into(colours: NDArray[np.uint8], side: int) -> list[NDArray[np.uint8]]:
    """The tiles of a picture that they fill, row by row."""
    height, width, _ = colours.shape
    corners = [(top, left) for top in range(0, height, side) for left in range(0, width, side)]
    return [colours[top : top + side, left : left + side] for top, left in corners]
