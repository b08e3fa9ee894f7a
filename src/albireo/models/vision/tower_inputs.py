"""What a vision tower reads of one tile, and what most towers answer alike.

Made by the families, put into a step by execution/vision.py.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from albireo.models.hearing.stem import Stem
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid, Sequences, merged_patches, side_by_side

if TYPE_CHECKING:
    from albireo.models.vision.encoder import EncoderSettings


@dataclass(frozen=True, slots=True)
class TowerInputs:
    """Fields:
    given: arrays [T, width]: patches (channel, row, column inside a patch, or as the family has them), then positions
        where the tower wants any.
    grid: rows and columns of patches, of the tile; or other two numbers that the tower puts rows together by.
    rope_rows: [T, head_dim] cosines, then sines, of the pairs (i, i + D/2); None: nothing is rotated.
    """

    given: tuple[F32, ...]
    grid: Grid
    rope_rows: F32 | None = None


class WithoutStem:
    """Of a tower that reads tiles itself, and has no rows but its projector's, one of merge * merge patches; see
    tower.VisionTower."""

    __slots__ = ()
    encoder: EncoderSettings
    merge: int

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        return rows

    @property
    def adds_rows(self) -> bool:
        return False

    @property
    def stem(self) -> Stem | None:
        return None

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        return {}

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        return ()

    @abstractmethod
    def patches(self, height: int, width: int) -> int:
        """See tower.VisionTower."""

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) // self.merge**2

    def most_rows(self, patches: int) -> int:
        return max(1, patches // self.merge**2)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return side_by_side(hidden, grid, self.merge)

    def projected(self, height: int, width: int) -> int:
        return self.rows(height, width)

    def projector_sequences(self, count: int) -> Sequences:
        return ()

    def sequences(self, height: int, width: int) -> Sequences:
        return ()

    def most_sequences(self, patches: int) -> int:
        return 1


class GivesRowsOnce(WithoutStem):
    """Of a tower whose rows are what stands in place of embeddings, and no more; see tower.VisionTower."""

    __slots__ = ()

    @property
    def deep_layers(self) -> tuple[int, ...]:
        return ()


class HoldsNothing(GivesRowsOnce):
    """Of a tower whose host part reads no tensors, either."""

    __slots__ = ()

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return ()

    def hold(self, tensors: Mapping[str, F32]) -> None:
        """There is nothing to keep."""


class InBlocks(WithoutStem):
    """Of a tower that reads any tile of whole blocks of patches."""

    __slots__ = ()

    def patches(self, height: int, width: int) -> int:
        return merged_patches(height, width, self.encoder.patch_size, self.merge)


class MergesInTime(WithoutStem):
    """Of a tower that puts merge positions of a sound side by side."""

    __slots__ = ()

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) // self.merge

    def most_rows(self, patches: int) -> int:
        return max(1, patches // self.merge)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return np.ascontiguousarray(hidden.reshape(-1, self.merge * hidden.shape[1]))


class RowAPatch(WithoutStem):
    """Of a tower that puts no patches together, and is told nothing of a tile but these."""

    __slots__ = ()

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width)

    def most_rows(self, patches: int) -> int:
        return patches

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden
