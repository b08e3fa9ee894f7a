"""MiniCpmV46 and MiniCpmOcr: a picture is one tile of its own proportions; and of a large one further tiles of one
size in a grid.

Chat templates write <|image_pad|> for a picture, which all of its rows are. Called by processor.py. Source: Xu et al.
2024, LLaVA-UHD; Yao et al. 2024, MiniCPM-V.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvalidParams, ModelError
from albireo.images.grids import MAX_TILES
from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, HALF, MAX_SIDE, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

START, END, PART, PART_END = "<image>", "</image>", "<slice>", "</slice>"
_NUMBER = ("<image_id>", "</image_id>")
#: Patches on a side of what becomes a row, by what files call it: two, twice or once.
_MERGED = {"16x": 4, "4x": 2}
#: Far more rows on a side of a tile than any has whose proportions are kept.
_LONGEST = 16


@dataclass(frozen=True, slots=True, eq=False)
class MiniCpmV46(HasPixels):
    """See ImageProcessor. Fields: step: side in pixels of what becomes a row. side: of a square that has as many pixels
    as a tile. most: tiles of the grid; 1: there is none. is_numbered: pictures of a prompt are. may_grow: small ones
    are made as large as a tile."""

    pixels: Pixels
    step: int
    side: int
    most: int
    is_numbered: bool
    may_grow: bool = True

    image_token = placeholder = "<|image_pad|>"
    classes: ClassVar[tuple[str, ...]] = ("MiniCPMV4_6ImageProcessor",)
    #: Where files do not say.
    default_mode: ClassVar[str] = "16x"

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image, model = settings.image, settings.model
        mode, of_tower = (each.text("downsample_mode", cls.default_mode) for each in (image, model))
        if mode not in _MERGED:
            image.unsupported("downsample_mode", mode, f"supported: {', '.join(_MERGED)}")
        if mode != of_tower:
            raise ModelError(
                f"{image.where}: downsample_mode is {mode}, but {model.where} has {of_tower}; both must be of one "
                "checkpoint"
            )
        patch, is_cut = image.integer("patch_size", 1, MAX_STEP, 14), image.flag("slice_mode", True)
        most = image.integer("max_slice_nums", 1, MAX_TILES, 9)
        found = cls(
            settings.pixels(cls.classes, BICUBIC, HALF, HALF),
            step=patch * _MERGED[mode],
            side=image.integer("scale_resolution", 1, MAX_SIDE, 448),
            most=most if is_cut else 1,
            is_numbered=image.flag("use_image_id", True),
            may_grow=cls.grows(settings),
        )
        settings.require_agreement(image, "patch_size", patch, settings.tower, "patch_size")
        settings.refuse_unread()
        return found

    @classmethod
    def grows(cls, settings: Settings) -> bool:
        """Whether small pictures are made larger."""
        return True

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor. Raises: InvalidParams for sides that are far too unequal."""
        given = image.height, image.width
        rows, columns = self._grid(*given)
        is_cut = rows * columns > 1
        tiles = [array(self.pixels.resized(image, *self._size(*given, may_grow=self.may_grow and not is_cut)))]
        text = f"{START}{self._rows_of(tiles[0])}{END}"
        if is_cut:
            # as if the grid were of whole pixels
            parts = (_nearest(given[0], rows) / rows, _nearest(given[1], columns) / columns)
            high, wide = self._size(*parts, may_grow=True)
            whole = array(self.pixels.resized(image, rows * high, columns * wide))
            cut = [
                whole[row * high : (row + 1) * high, column * wide : (column + 1) * wide]
                for row in range(rows)
                for column in range(columns)
            ]
            tiles, text = [*tiles, *cut], text + self.grid_text(cut[0], rows, columns)
        self._check(image, tiles)
        return PreparedImage(tuple(tiles), text, numbered=_NUMBER if self.is_numbered else None)

    def rows(self, height: int, width: int) -> int:
        return (height // self.step) * (width // self.step)

    def largest_tile(self) -> tuple[int, int]:
        # sides are rounded to whole rows, of which a long tile has many on one
        side = -(-self.side // self.step) + 1
        return self.step, self.step * max(side**2, _LONGEST)

    def grid_text(self, tile: NDArray[np.uint8], rows: int, columns: int) -> str:
        """What stands for further tiles, each like this one."""
        line = f"{PART}{self._rows_of(tile)}{PART_END}" * columns
        return "\n".join([line] * rows)

    def _rows_of(self, tile: NDArray[np.uint8]) -> str:
        return self.image_token * self.rows(*tile.shape[:2])

    def _grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of further tiles, of nearly the picture's proportions: about as many as it has pixels for.
        One: there are none."""
        count = min(math.ceil(width * height / self.side**2), self.most)
        if count <= 1:
            return 1, 1
        best, least = (1, 1), math.inf
        for number in (count - 1, count, count + 1):
            if number == 1 or number > self.most:
                continue
            for rows in range(1, number + 1):
                error = abs(math.log(width / height) - math.log(number // rows / rows))
                if number % rows == 0 and (error < least or (error == least and rows > best[0])):
                    best, least = (rows, number // rows), error
        return best

    def _size(self, height: float, width: float, may_grow: bool) -> tuple[int, int]:
        """Height and width of a tile: at most side² pixels in these proportions, in whole rows."""
        if height * width > self.side**2 or may_grow:
            ratio = width / height
            height = int(self.side / math.sqrt(ratio))
            width = int(height * ratio)
        return _nearest(height, self.step), _nearest(width, self.step)

    def _check(self, image: Image.Image, tiles: list[NDArray[np.uint8]]) -> None:
        largest = math.prod(self.largest_tile())
        if any(tile.shape[0] * tile.shape[1] > largest for tile in tiles):
            raise InvalidParams(
                f"a picture of {image.width} x {image.height} pixels is too long in one direction: a tile of it would "
                f"have more than {largest} pixels"
            )


class MiniCpmOcr(MiniCpmV46):
    """See ImageProcessor."""

    __slots__ = ()
    classes = ("MiniCPMOcrImageProcessor",)
    default_mode = "4x"

    @classmethod
    def grows(cls, settings: Settings) -> bool:
        """Raises: UnsupportedModel for what asks how large letters of a picture are."""
        said = settings.image.one_of("small_image_upsize", ("always", "never"), "always")
        return said == "always"


def _nearest(length: float, step: int) -> int:
    """A multiple of step, one at least."""
    return max(round(length / step) * step, step)
