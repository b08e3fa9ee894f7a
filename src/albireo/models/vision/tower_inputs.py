"""What a vision tower reads of one tile. Made by the families, put into a step by execution/vision.py."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from albireo.models.hearing.stem import Stem
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid, Sequences


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
    """Of a tower that reads tiles itself, and has no rows but its projector's; see tower.VisionTower."""

    __slots__ = ()

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

    def projected(self, height: int, width: int) -> int:
        return self.rows(height, width)

    def projector_sequences(self, count: int) -> Sequences:
        return ()

    @abstractmethod
    def rows(self, height: int, width: int) -> int:
        """See tower.VisionTower."""


class GivesRowsOnce(WithoutStem):
    """Of a tower whose rows are what stands in place of embeddings, and no more; see tower.VisionTower."""

    __slots__ = ()
    merge: int

    @property
    def deep_layers(self) -> tuple[int, ...]:
        return ()

    def most_rows(self, patches: int) -> int:
        return max(1, patches // self.merge**2)

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        return ()

    def sequences(self, height: int, width: int) -> Sequences:
        return ()

    def most_sequences(self, patches: int) -> int:
        return 1


class HoldsNothing(GivesRowsOnce):
    """Of a tower whose host part reads no tensors, either."""

    __slots__ = ()

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return ()

    def hold(self, tensors: Mapping[str, F32]) -> None:
        """There is nothing to keep."""
