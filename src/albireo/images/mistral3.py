"""Mistral3: Pixtral's processor. A picture is one tile, at most so long; its rows stand line by line, with breaks.

Called by processor.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvalidParams
from albireo.images.pixels import Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class Mistral3:
    """See ImageProcessor.

    Fields:
        longest: either side of a tile at most. step: side in pixels of what becomes a row.
        line_break, end: stand behind each line of rows, and behind the last.
    """

    pixels: Pixels
    longest: int
    step: int
    image_token: str
    line_break: str
    end: str

    @property
    def placeholder(self) -> str:
        return self.image_token

    @classmethod
    def read(cls, settings: Settings) -> Mistral3:
        """Raises: ModelError, UnsupportedModel."""
        processor = settings.processor
        patch = processor.integer("patch_size", 1, MAX_STEP, 16)
        merge = processor.integer("spatial_merge_size", 1, MAX_STEP, 1)
        settings.require_agreement(processor, "patch_size", patch, settings.tower, "patch_size")
        settings.require_agreement(processor, "spatial_merge_size", merge, settings.model, "spatial_merge_size")
        (longest,) = settings.size("longest_edge", default=1024)
        found = cls(
            settings.pixels(("PixtralImageProcessor",), BICUBIC, CLIP_MEAN, CLIP_STD),
            longest=longest,
            step=patch * merge,
            image_token=processor.text("image_token", "[IMG]"),
            line_break=processor.text("image_break_token", "[IMG_BREAK]"),
            end=processor.text("image_end_token", "[IMG_END]"),
        )
        # the image processor's own is never asked
        settings.refuse_unread(("patch_size",))
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor."""
        height, width = self._size(image.height, image.width)
        tile = array(self.pixels.resized(image, height, width))
        line = self.image_token * (width // self.step)
        return PreparedImage((tile,), self.line_break.join([line] * (height // self.step)) + self.end)

    def rows(self, height: int, width: int) -> int:
        return (height // self.step) * (width // self.step)

    def largest_tile(self) -> tuple[int, int]:
        side = -(-self.longest // self.step) * self.step
        return side, side

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.pixels.normalized(tile)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a tile: no side beyond longest, then up to multiples of step."""
        ratio = max(height / self.longest, width / self.longest)
        sides = [math.floor(side / ratio) if ratio > 1 else side for side in (height, width)]
        if min(sides) < 1:
            raise InvalidParams(
                f"a picture of {width} x {height} pixels is too long in one direction: nothing of the other is left "
                f"when it has {self.longest} pixels, which are read at most"
            )
        tall, wide = (-(-side // self.step) * self.step for side in sides)
        return tall, wide
