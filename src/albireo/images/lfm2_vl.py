"""Lfm2Vl: a small picture is one tile of nearly its own proportions; a large one square tiles and a thumbnail.

Called by processor.py. transformers resizes with torchvision, whose weights have 16 bits where Pillow's have 22: a few
in a hundred of the tiles' values are one more or less there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvalidParams
from albireo.images.grids import MAX_TILES, cut_into, grids, nearest_grid
from albireo.images.pixels import HasPixels, Pixels, array, scaled_at_once
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BILINEAR, HALF, MAX_ROWS, MAX_SIDE, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

_START, _END, _THUMBNAIL = "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"


@dataclass(frozen=True, slots=True, eq=False)
class Lfm2Vl(HasPixels):
    """See ImageProcessor.

    Fields:
        patch: side of what the tower begins with. scale: that many patches in either direction become a row.
        fewest, most: rows of a picture that is not cut, and of a thumbnail.
        tolerance: times most, how large a picture may be before it is cut.
        side: of a tile. grids: columns and rows of tiles that a picture may be cut into; none: it is not cut.
        has_thumbnail: of what is cut into several.
    """

    pixels: Pixels
    patch: int
    scale: int
    fewest: int
    most: int
    tolerance: float
    side: int
    grids: tuple[tuple[int, int], ...]
    has_thumbnail: bool

    image_token = placeholder = "<image>"

    @classmethod
    def read(cls, settings: Settings) -> Lfm2Vl:
        """Raises: ModelError, UnsupportedModel."""
        image = settings.image
        fewest_tiles = image.integer("min_tiles", 1, MAX_TILES, 2)
        most_tiles = image.integer("max_tiles", 1, MAX_TILES, 10)
        is_cut = image.flag("do_image_splitting", True)
        if is_cut and fewest_tiles > most_tiles:
            image.fail("min_tiles", fewest_tiles, f"must be at most max_tiles={most_tiles}")
        found = cls(
            settings.pixels(("Lfm2VlImageProcessor",), BILINEAR, HALF, HALF, scaled_at_once),
            patch=image.integer("encoder_patch_size", 1, MAX_STEP, 16),
            scale=image.integer("downsample_factor", 1, MAX_STEP, 2),
            fewest=image.integer("min_image_tokens", 1, MAX_ROWS, 64),
            most=image.integer("max_image_tokens", 1, MAX_ROWS, 256),
            tolerance=image.number("max_pixels_tolerance", 0.0, 2.0**20, 2.0),
            side=image.integer("tile_size", 1, MAX_SIDE, 512),
            grids=grids(fewest_tiles, most_tiles) if is_cut and most_tiles > 1 else (),
            has_thumbnail=image.flag("use_thumbnail", True),
        )
        settings.require_agreement(image, "encoder_patch_size", found.patch, settings.tower, "patch_size")
        settings.require_agreement(image, "downsample_factor", found.scale, settings.model, "downsample_factor")
        # follow from others, or are not asked; pictures are resized whatever their file says
        others = "max_num_patches", "size", "patch_size", "use_numpy_backend", "do_resize"
        settings.refuse_unread(others, {"use_image_special_tokens": (True,)})
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        if not self.grids or not self._is_large(image.height, image.width):
            whole = self._whole(image)
            return PreparedImage((whole,), f"{_START}{self._rows_of(whole)}{_END}")
        num_columns, num_rows = nearest_grid(self.grids, image.height, image.width, self.side)
        thumbnail = [self._whole(image)] if self.has_thumbnail else []
        cut = array(self.pixels.resized(image, num_rows * self.side, num_columns * self.side))
        if num_columns * num_rows == 1:
            return PreparedImage((cut,), f"{_START}{self._rows_of(cut)}{_END}")
        tiles = cut_into(cut, self.side)
        places = [(row + 1, column + 1) for row in range(num_rows) for column in range(num_columns)]
        marks = [f"<|img_row_{row}_col_{column}|>" for row, column in places]
        tiles += thumbnail
        marks += [_THUMBNAIL] * len(thumbnail)
        text = "".join(mark + self._rows_of(tile) for mark, tile in zip(marks, tiles, strict=True))
        return PreparedImage(tuple(tiles), f"{_START}{text}{_END}")

    def rows(self, height: int, width: int) -> int:
        return math.ceil(height // self.patch / self.scale) * math.ceil(width // self.patch / self.scale)

    def largest_tile(self) -> tuple[int, int]:
        step = self.patch * self.scale
        is_cut = self.side**2 > self.most * step**2
        return (self.side, self.side) if is_cut else (step, step * self.most)

    def _whole(self, image: Image.Image) -> NDArray[np.uint8]:
        """As one tile, which is not square. Raises: InvalidParams where it would have more rows than are allowed."""
        tall, wide = self._size(image.height, image.width)
        if self.rows(tall, wide) > self.most:
            raise InvalidParams(
                f"a picture of {image.width} x {image.height} pixels is too long in one direction: it would have "
                f"{self.rows(tall, wide)} rows of the tower, {self.most} are allowed"
            )
        return array(self.pixels.resized(image, tall, wide))

    def _rows_of(self, tile: NDArray[np.uint8]) -> str:
        return self.image_token * self.rows(*tile.shape[:2])

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what is not cut: multiples of a row's side, in proportion as nearly as rows allow."""
        step = self.patch * self.scale
        tall, wide = (max(step, round(side / step) * step) for side in (height, width))
        if tall * wide > self.most * step**2:
            scale = math.sqrt(height * width / (self.most * step**2))
            tall, wide = (max(step, math.floor(side / scale / step) * step) for side in (height, width))
        elif tall * wide < self.fewest * step**2:
            scale = math.sqrt(self.fewest * step**2 / (height * width))
            tall, wide = (math.ceil(side * scale / step) * step for side in (height, width))
        return tall, wide

    def _is_large(self, height: int, width: int) -> bool:
        step = self.patch * self.scale
        tall, wide = (max(self.patch, round(side / step) * step) for side in (height, width))
        return tall * wide > self.most * step**2 * self.tolerance
