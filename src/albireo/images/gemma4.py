"""Gemma4: a picture keeps its proportions, and has as many pixels as so many rows allow. It is one tile. Also of 12B,
which has no tower (gemma4_unified).

Called by processor.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError
from albireo.images.pixels import HasPixels, Pixels, array, scaled_first
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, MAX_ROWS, MAX_STEP, Settings
from albireo.json_file import keys

if TYPE_CHECKING:
    from PIL import Image

#: Around the rows of a picture.
BEGIN, END = "<|image>", "<image|>"
#: Colours as they are.
_MEAN, _STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
#: Of sounds; and what nobody asks of pictures, whose size follows from the number of rows.
_OF_OTHERS = keys("feature_extractor audio_seq_length audio_ms_per_token image_seq_length size")
#: On a side: pixels of a patch, and patches of what becomes a row.
_SIDES = {"patch_size": 16, "pooling_kernel_size": 3}
#: Rows of the tables of positions: the key, what it is where nothing is said, and whether they are of patches; of 12B
#: they are of what becomes a row.
_POSITIONS, _POSITIONS_OF_ROWS = ("position_embedding_size", 10240, True), ("mm_posemb_size", 1120, False)
_CLASSES = ("Gemma4ImageProcessor", "Gemma4UnifiedImageProcessor")


@dataclass(frozen=True, slots=True, eq=False)
class Gemma4(HasPixels):
    """See ImageProcessor. Fields: step: side in pixels of what becomes a row. most: rows of a picture."""

    pixels: Pixels
    step: int
    most: int

    image_token = placeholder = "<|image|>"

    @classmethod
    def read(cls, settings: Settings) -> Gemma4:
        """Raises: ModelError, UnsupportedModel."""
        image, tower = settings.image, settings.tower
        is_normed = image.flag("do_normalize", False)

        def table(factor: float, mean: Sequence[float], std: Sequence[float]) -> NDArray[np.float32]:
            return scaled_first(factor, *((mean, std) if is_normed else (_MEAN, _STD)))

        sides = {name: image.integer(name, 1, MAX_STEP, usual) for name, usual in _SIDES.items()}
        patch, pooled = sides.values()
        is_unified = settings.model.raw("model_type") == "gemma4_unified"
        found = cls(
            settings.pixels((_CLASSES[is_unified],), BICUBIC, _MEAN, _STD, table),
            step=patch * pooled,
            most=image.integer("max_soft_tokens", 1, MAX_ROWS, 280),
        )
        for name, side in sides.items():
            settings.require_agreement(image, name, side, tower, name)
        key, usual, are_of_patches = _POSITIONS_OF_ROWS if is_unified else _POSITIONS
        positions, longest = tower.integer(key, 1, 2**31, usual), found.most * (pooled if are_of_patches else 1)
        if longest > positions:
            raise ModelError(
                f"{image.where}: max_soft_tokens is {found.most}: a picture may be {longest} patches long, "
                f"but {tower.where} has {key}={positions}; ask for less"
            )
        settings.refuse_unread(_OF_OTHERS)
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        height, width = self.size_of(image.height, image.width)
        tile = array(self.pixels.resized(image, height, width))
        return PreparedImage((tile,), f"{BEGIN}{self.image_token * self.rows(height, width)}{END}")

    def rows(self, height: int, width: int) -> int:
        return (height // self.step) * (width // self.step)

    def largest_tile(self) -> tuple[int, int]:
        return self.step, self.most * self.step

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a tile: the largest steps of the same proportions; of a line as many as it is long."""
        factor = math.sqrt(self.most * self.step**2 / (height * width))
        tall, wide = (math.floor(factor * side / self.step) for side in (height, width))
        if not tall:
            tall, wide = 1, min(max(width // height, 1), self.most)
        elif not wide:
            tall, wide = min(max(height // width, 1), self.most), 1
        return tall * self.step, wide * self.step
