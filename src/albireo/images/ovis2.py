"""Ovis2: square tiles in a grid that shows nearly all of a picture's pixels, and first the whole of it in one.

Chat templates write the letters <image> for a picture. Marks around its tiles are rows of the tower, too
(models/vision/ovis2.py): which a tile has, its width tells. Called by processor.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from albireo.images.grids import MAX_TILES, Grid, cut_into, grids, nearest_grid
from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings
from albireo.models.vision.ovis2 import FRAMES, frame_of

if TYPE_CHECKING:
    from PIL import Image

#: What chat templates write for a picture; no token.
WRITTEN = "<image>"
_MARKS = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
_CLASSES = ("Ovis2ImageProcessor",)
#: Of a picture's pixels, what a grid shows is enough.
_ENOUGH = 0.9
_ALONE, _WHOLE, _IN_LINE, _LAST_OF_LINE, _LAST = range(len(FRAMES))


@dataclass(frozen=True, slots=True, eq=False)
class Ovis2(HasSquares):
    """See ImageProcessor and HasMarksOfRows. Fields: side: of a tile. num_rows: of it, without marks. grids: that a
    picture may be cut into; none: it is one tile. by_area: one that shows enough of it, else of its proportions."""

    pixels: Pixels
    side: int
    num_rows: int
    grids: tuple[Grid, ...]
    by_area: bool

    image_token = placeholder = "<IMG_ATOM>"
    row_marks = _MARKS

    @classmethod
    def read(cls, settings: Settings) -> Ovis2:
        """Raises: ModelError, UnsupportedModel."""
        image, processor, tower = settings.image, settings.processor, settings.tower
        width = settings.square(384)
        of_tower = tower.integer("image_size", 1, 2**16, 224)
        if width != of_tower:
            image.fail("size", image.raw("size"), f"must be the {of_tower} x {of_tower} pixels of config.json's tower")
        step = tower.integer("patch_size", 1, MAX_STEP, 14) * tower.integer("hidden_stride", 1, MAX_STEP, 1)
        num_rows = (width // step) ** 2
        settings.require_rows(processor, "image_seq_length", 256, num_rows, width)
        fewest, most = image.integer("min_patches", 1, MAX_TILES, 1), image.integer("max_patches", 1, MAX_TILES, 12)
        if fewest > most:
            image.fail("min_patches", fewest, f"must be at most max_patches={most}")
        is_cut, by_area = image.flag("crop_to_patches", False), image.flag("use_covering_area_grid", True)
        some = grids(1 if by_area else fewest, most) if is_cut and most > 1 else ()
        found = cls(settings.pixels(_CLASSES, BICUBIC, CLIP_MEAN, CLIP_STD), width, num_rows, some, by_area)
        settings.refuse_unread((), {"do_center_crop": (False,), "image_token": (WRITTEN, cls.image_token)})
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        columns, rows = self.grid(image.height, image.width)
        count = columns * rows
        whole = self._framed(array(self.pixels.resized(image, self.side, self.side)), _WHOLE if count > 1 else _ALONE)
        if count == 1:
            return PreparedImage((whole,), self.text([whole.shape]))
        cut = cut_into(array(self.pixels.resized(image, rows * self.side, columns * self.side)), self.side)
        places = [_IN_LINE if number % columns else _LAST_OF_LINE for number in range(1, count)]
        tiles = whole, *(self._framed(*each) for each in zip(cut, [*places, _LAST], strict=True))
        return PreparedImage(tiles, self.text([tile.shape for tile in tiles]))

    def grid(self, height: int, width: int) -> Grid:
        """Columns and rows of tiles that a picture is cut into. As transformers has it, one that is weighed as rows and
        columns is cut as columns and rows."""
        if not self.grids or not self.by_area:
            return nearest_grid(self.grids, height, width, self.side)
        shown = {grid: _shown(height, width, grid, self.side) for grid in self.grids}
        if enough := [grid for grid in self.grids if shown[grid] > _ENOUGH]:
            return min(enough, key=lambda grid: (math.prod(grid), -shown[grid]))
        return min(self.grids, key=lambda grid: (-shown[grid], math.prod(grid)))

    def _framed(self, tile: NDArray[np.uint8], place: int) -> NDArray[np.uint8]:
        """With as many columns more as its place says."""
        return np.pad(tile, ((0, 0), (0, place), (0, 0)))

    def text(self, sizes: list[tuple[int, ...]]) -> str:
        """What stands for tiles of these sizes."""
        frames = [frame_of(*size[:2]) for size in sizes]
        rows = self.image_token * self.num_rows
        marks = [["".join(_MARKS[mark] for mark in some) for some in frame] for frame in frames]
        return "".join(f"{before}{rows}{behind}" for before, behind in marks)

    def rows(self, height: int, width: int) -> int:
        return self.num_rows + frame_of(height, width).num_marks


def _shown(height: int, width: int, grid: Grid, side: int) -> float:
    """How many of a picture's pixels are seen where it is cut into so many rows and columns, and each part is made as
    small as a tile."""
    rows, columns = grid
    high, wide = height // rows, width // columns
    parts = [
        (height - row * high if row == rows - 1 else high, width - column * wide if column == columns - 1 else wide)
        for row in range(rows)
        for column in range(columns)
    ]
    return sum(_seen(max(part), min(part), side) for part in parts) / (height * width)


def _seen(longer: float, shorter: float, side: int) -> float:
    return side * (shorter / longer * side) if longer > side else longer * shorter
