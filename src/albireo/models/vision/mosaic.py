"""Mosaic: a picture as one tile of square blocks, of which the last is the whole of it, and what of their edges is
left out again.

Made by images/, read by the tower that sees each block alone. All that is to be known of it is in the tile's height and
width: it is as many pixels higher, and wider, than its blocks as lines, and columns, of patches are left out at either
end.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError

#: As many times longer a side may be than it should.
_MUCH = 1.1


def shrunk(grid: tuple[int, int], side: int, most: int) -> tuple[int, int]:
    """Lines and columns that rows of a picture's blocks are resampled to, where these are clearly more than so many
    blocks have. Args: grid: what is left of them. side: patches on that of a block. most: blocks."""
    ratio = math.sqrt(math.prod(grid) / (most * side**2))
    if ratio <= _MUCH:
        return grid
    return int(grid[0] // ratio), int(grid[1] // ratio)


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Fields: rows, columns: of blocks, below which stands that of the whole picture. lines: of patches that are left
    out at the top and at the bottom; sides: on the left and on the right."""

    rows: int
    columns: int
    lines: int = 0
    sides: int = 0

    @classmethod
    def of(cls, height: int, width: int, block: int) -> Mosaic:
        """That of a tile of so many pixels. Args: block: pixels on its side.

        Raises: InvariantError where it is none.
        """
        rows, lines = divmod(height, block)
        columns, sides = divmod(width, block)
        if rows < 2 or columns < 1:
            raise InvariantError(f"a tile of {height} x {width} pixels is not two blocks of {block} x {block} at least")
        return cls(rows - 1, columns, lines, sides)

    @property
    def num_blocks(self) -> int:
        return 1 + self.rows * self.columns

    def size(self, block: int) -> tuple[int, int]:
        """Height and width of its tile."""
        return (self.rows + 1) * block + self.lines, self.columns * block + self.sides

    def grid(self, side: int) -> tuple[int, int]:
        """Lines and columns of patches that are left of the blocks. Args: side: patches on that of a block.

        Raises: InvariantError where more are left out than there are.
        """
        left = self.rows * side - 2 * self.lines, self.columns * side - 2 * self.sides
        if min(left) < 0:
            raise InvariantError(f"of {self.rows} x {self.columns} blocks of {side} patches nothing is left: {self}")
        return left

    def blocks(self, tile: NDArray[np.float32], block: int) -> list[NDArray[np.float32]]:
        """[block, block, 3] of each, that of the whole picture first, then row by row."""
        corners = [(row * block, column * block) for row in range(self.rows) for column in range(self.columns)]
        found = [tile[top : top + block, left : left + block] for top, left in corners]
        top = self.rows * block
        return [tile[top : top + block, :block], *found]
