"""What towers of square tiles of one size have alike, whose positions are tensors of their program.

Called by the families.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.models.vision.encoder import EncoderSettings
from albireo.models.vision.patches import F32, one_size, patch_rows
from albireo.models.vision.tower_inputs import HoldsNothing, TowerInputs


@dataclass(frozen=True, slots=True)
class SquareTower(HoldsNothing):
    """Of tower.VisionTower all but the programs and what lies between them. Fields: side: patches on each. merge:
    patches on a side of what becomes one row. width: of a row."""

    encoder: EncoderSettings
    side: int
    merge: int
    width: int

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    def patches(self, height: int, width: int) -> int:
        return one_size(height, width, self.side, self.encoder.patch_size)

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) // self.merge**2

    def inputs(self, tile: F32) -> TowerInputs:
        self.patches(*tile.shape[:2])
        return TowerInputs((patch_rows(tile, self.encoder.patch_size),), (self.side, self.side))
