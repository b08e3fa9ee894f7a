"""What towers of square tiles of one size have alike: positions are tensors of their program; or come with a tile, and
the first row of the tower is no patch but a class.

Called by the families.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from albireo.models.vision.encoder import EncoderSettings
from albireo.models.vision.patches import F32, Grid, one_size, patch_rows, side_by_side
from albireo.models.vision.positions import held
from albireo.models.vision.tower_inputs import GivesRowsOnce, HoldsNothing, TowerInputs


@dataclass(frozen=True, slots=True)
class SquareTower(HoldsNothing):
    """Of tower.VisionTower all but the programs and what lies between them. Fields: side: patches on each. merge:
    patches on a side of what becomes one row. width: of a row. spare: pixels at the right and at the bottom of a tile
    that fill no patch."""

    encoder: EncoderSettings
    side: int
    merge: int
    width: int
    spare: int = field(default=0, kw_only=True)

    def patches(self, height: int, width: int) -> int:
        return one_size(height, width, self.side, self.encoder.patch_size, self.spare)

    def inputs(self, tile: F32) -> TowerInputs:
        self.patches(*tile.shape[:2])
        filled = self.side * self.encoder.patch_size
        return TowerInputs((patch_rows(tile[:filled, :filled], self.encoder.patch_size),), (self.side, self.side))


@dataclass(slots=True)
class ClassTower(GivesRowsOnce):
    """As SquareTower. The class comes as a patch of zeros, of which a linear without a bias makes nothing, and its
    embedding is among the positions.

    Fields: positions: [1 + side * side, E] of the class, its embedding included, and of patches, once held.
    """

    encoder: EncoderSettings
    side: int
    width: int
    positions: F32 | None = field(default=None, kw_only=True)

    def patches(self, height: int, width: int) -> int:
        return 1 + one_size(height, width, self.side, self.encoder.patch_size)

    def rows(self, height: int, width: int) -> int:
        return (self.patches(height, width) - 1) // self.merge**2

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return side_by_side(hidden[1:], grid, self.merge)

    def inputs(self, tile: F32) -> TowerInputs:
        self.patches(*tile.shape[:2])
        rows = patch_rows(tile, self.encoder.patch_size)
        given = np.concatenate([np.zeros_like(rows[:1]), rows]), held(self.positions, "a table of positions")
        return TowerInputs(given, (self.side, self.side))
