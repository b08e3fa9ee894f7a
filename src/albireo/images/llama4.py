"""Llama4: Scout and Maverick. A picture keeps its proportions on a grid of square tiles, what it does not fill is
black; where there are several, the whole of it is one more, without its proportions.

Chat templates write <|image|> for a picture. Called by processor.py. Pictures are resized by Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from albireo.errors import ModelError
from albireo.images.grids import MAX_TILES, cut_into
from albireo.images.pixels import HasSquares, Pixels, array, scaled_in_bfloat16
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BILINEAR, HALF, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

_START, _END, _WHOLE = "<|image_start|>", "<|image_end|>", "<|image|>"
_BESIDE, _BELOW = "<|tile_x_separator|>", "<|tile_y_separator|>"
_ROW = "<|patch|>"
_CLASSES = ("Llama4ImageProcessor",)
#: Names of tokens that files of the processor may have.
_TOKENS = {
    "fake_image_token": (_WHOLE,),
    "image_token": (_WHOLE,),
    "start_of_image_token": (_START,),
    "end_of_image_token": (_END,),
    "patch_token": (_ROW,),
    "tile_x_separator_token": (_BESIDE,),
    "tile_y_separator_token": (_BELOW,),
}
#: Lines and columns of tiles.
Grid = tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Llama4(HasSquares):
    """See ImageProcessor.

    Fields: side: of a tile. num_rows: of it. grids: that a picture may lie on, of several that suit it alike the first
        of the fewest tiles. fills: the largest that suits is taken, and the picture enlarged to it; else it is enlarged
        up to one tile, and further sides are black.
    """

    pixels: Pixels
    side: int
    num_rows: int
    grids: tuple[Grid, ...]
    fills: bool

    image_token, placeholder = _ROW, _WHOLE

    @classmethod
    def read(cls, settings: Settings) -> Llama4:
        """Raises: ModelError, UnsupportedModel."""
        image, processor, tower = settings.image, settings.processor, settings.tower
        side = settings.square(336)
        settings.require_agreement(image, "size", side, tower, "image_size")
        patch, ratio = tower.integer("patch_size", 1, MAX_STEP, 14), tower.number("pixel_shuffle_ratio", 1 / 16, 1, 0.5)
        num_rows = int(side // patch * ratio) ** 2
        steps = (
            processor.integer("patch_size", 1, MAX_STEP, 14),
            processor.number("pixel_shuffle_ratio", 1 / 16, 1, 0.5),
        )
        said = (side // steps[0]) ** 2 // round(1 / steps[1] ** 2)
        if said != num_rows:
            raise ModelError(
                f"{processor.where}: patch_size and pixel_shuffle_ratio mean {said} rows of a tile of {side} x "
                f"{side} pixels, but the tower of config.json gives {num_rows}; both must be of one checkpoint"
            )
        most = image.integer("max_patches", 1, MAX_TILES, 16)
        pixels = settings.pixels(_CLASSES, BILINEAR, HALF, HALF, scaled_in_bfloat16)
        found = cls(pixels, side, num_rows, _grids(most), image.flag("resize_to_max_canvas", False))
        settings.refuse_unread((), _TOKENS)
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        lines, columns = grid = self.grid(image.height, image.width)
        tall, wide = self._within(image.height, image.width, grid)
        canvas = np.zeros((lines * self.side, columns * self.side, 3), np.uint8)
        canvas[:tall, :wide] = array(self.pixels.resized(image, tall, wide))
        tiles = cut_into(canvas, self.side)
        if len(tiles) > 1:
            tiles.append(array(self.pixels.resized(image, self.side, self.side)))
        return PreparedImage(tuple(tiles), self.text(grid))

    def grid(self, height: int, width: int) -> Grid:
        """Lines and columns of tiles that a picture of so many pixels lies on: what it need be enlarged for the least,
        or the most where it fills; where all are smaller, what it is made smaller for the least."""
        # in the numbers that the model was trained with, in which some are equal
        scales = np.array(self.grids, np.float32) * np.float32(self.side) / np.array([height, width], np.float32)
        least = scales.min(axis=1)
        enlarged = least[least >= 1]
        best = (enlarged.max() if self.fills else enlarged.min()) if len(enlarged) else least.max()
        return min((self.grids[place] for place in np.flatnonzero(least == best)), key=lambda grid: grid[0] * grid[1])

    def _within(self, height: int, width: int, grid: Grid) -> tuple[int, int]:
        """Height and width in proportion of what a picture becomes on a grid."""
        tall, wide = ((count * self.side, self.fills) for count in grid)
        if not self.fills:
            tall, wide = (self._limited(*each) for each in ((height, tall[0]), (width, wide[0])))
        of_height, of_width = _ratio(*tall, height), _ratio(*wide, width)
        # where one of them is rounded, both are, when they are compared
        is_rounded = tall[1] or wide[1]
        if (np.float32(of_width) < np.float32(of_height)) if is_rounded else of_width < of_height:
            return max(min(int(type(of_width)(height) * of_width), tall[0]), 1), wide[0]
        return tall[0], max(min(int(type(of_height)(width) * of_height), wide[0]), 1)

    def _limited(self, own: int, of_grid: int) -> tuple[int, bool]:
        """What a side is at most, no longer than it is or than one tile; and whether that is the grid's."""
        most = max(own, self.side)
        return (of_grid, True) if of_grid < most else (most, False)

    def text(self, grid: Grid) -> str:
        """What stands for a picture on such a grid."""
        rows, (lines, columns) = self.image_token * self.num_rows, grid
        line = _BESIDE.join([rows] * columns) + _BELOW
        return f"{_START}{line * lines if lines * columns > 1 else ''}{_WHOLE}{rows}{_END}"

    def rows(self, height: int, width: int) -> int:
        return self.num_rows


def _ratio(wanted: int, is_rounded: bool, own: int) -> np.float32 | np.float64:
    """By how much a side is enlarged; of sides of grids as the model's first processor has it, in 32 bits."""
    kind = np.float32 if is_rounded else np.float64
    return kind(wanted) / kind(own)


def _grids(most: int) -> tuple[Grid, ...]:
    """All of up to so many tiles: of one proportion together, the one of most tiles first."""
    of_proportion: dict[float, list[Grid]] = {}
    for count in range(most, 0, -1):
        for lines in (side for side in range(1, count + 1) if count % side == 0):
            columns = count // lines
            of_proportion.setdefault(lines / columns, []).append((lines, columns))
    return tuple(grid for some in of_proportion.values() for grid in some)
