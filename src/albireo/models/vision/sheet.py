"""Sheet: a picture as one tile of square blocks, and how much of its edges was never a part of it.

Made by images/, read by the tower that sees each block alone. All that is to be known of it is in the tile's height and
width: it is as many pixels higher, and wider, than its blocks as lines of patches at the bottom, and columns on the
right, have nothing of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.models.vision.patches import Grid


@dataclass(frozen=True, slots=True)
class Sheet:
    """Fields: rows, columns: of blocks. lines: of patches at the bottom that have nothing of the picture; sides:
    columns of those on the right. side: patches on that of a block."""

    rows: int
    columns: int
    lines: int
    sides: int
    side: int

    @classmethod
    def of(cls, height: int, width: int, block: int, side: int) -> Sheet:
        """That of a tile of so many pixels. Args: block: pixels on its side. Raises: InvariantError where it is
        none."""
        rows, lines = divmod(height, block)
        columns, sides = divmod(width, block)
        if not rows or not columns or max(lines, sides) >= side:
            raise InvariantError(
                f"a tile of {height} x {width} pixels is no blocks of {block} x {block} whose last lines and columns "
                f"have less than {side} patches of nothing"
            )
        return cls(rows, columns, lines, sides, side)

    def size(self, block: int) -> Grid:
        """Height and width of its tile."""
        return self.rows * block + self.lines, self.columns * block + self.sides

    @property
    def seen(self) -> tuple[Grid, ...]:
        """Of each block, row by row: lines and columns of patches that have something of the picture."""
        high, wide = ([self.side] * count for count in (self.rows, self.columns))
        high[-1], wide[-1] = self.side - self.lines, self.side - self.sides
        return tuple((tall, broad) for tall in high for broad in wide)

    @property
    def kept(self) -> Grid:
        """Lines and columns of rows, of which each is made of 2 x 2 patches, one of them of the picture."""
        half = (self.side + 1) // 2
        last = (self.side - self.lines + 1) // 2, (self.side - self.sides + 1) // 2
        return (self.rows - 1) * half + last[0], (self.columns - 1) * half + last[1]

    def blocks(self, tile: NDArray[np.float32], block: int) -> list[NDArray[np.float32]]:
        """[block, block, 3] of each, row by row."""
        corners = [(row * block, column * block) for row in range(self.rows) for column in range(self.columns)]
        return [tile[top : top + block, left : left + block] for top, left in corners]
