"""Phi3V: a picture as wide as some square blocks, or as high where that is more, with white above and below it, or on
either side; one more block, the whole of it, is made where the tower begins.

Called by processor.py. Source: Microsoft 2024, Phi-3 Technical Report, and its authors' code, which resizes with
Pillow; Dong et al. 2024, InternLM-XComposer2-4KHD.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from albireo.errors import InvalidParams
from albireo.images.grids import MAX_TILES
from albireo.images.pixels import HasPixels, Pixels, array, scaled_first
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BILINEAR, CLIP_MEAN, CLIP_STD, MAX_SIDE, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

#: Patches on a side of what becomes a row.
_MERGE = 2
#: Lines become columns, as Pillow numbers it.
_TRANSPOSE = 5
#: A picture, as its authors write it in prompts.
_SPELLED = re.compile(r"<\|image_([0-9]{1,9})\|>")


@dataclass(frozen=True, slots=True, eq=False)
class Phi3V(HasPixels):
    """See ImageProcessor. Fields: block: pixels on its side. side: rows on it. most: blocks of a picture, without the
    whole of it."""

    pixels: Pixels
    block: int
    side: int
    most: int

    image_token = placeholder = "<|image|>"
    begins_again = True

    @classmethod
    def read(cls, settings: Settings) -> Phi3V:
        """Raises: ModelError, UnsupportedModel."""
        image, tower = settings.image, settings.tower
        block, patch = tower.integer("image_size", 1, MAX_SIDE, 336), tower.integer("patch_size", 1, MAX_STEP, 14)
        side = block // patch // _MERGE
        settings.require_rows(image, "num_img_tokens", side**2, side**2, block)
        pixels = settings.pixels(("Phi3VImageProcessor",), BILINEAR, CLIP_MEAN, CLIP_STD, scaled_first)
        if pixels.filter != BILINEAR:
            image.unsupported("resample", pixels.filter, f"supported: {BILINEAR}")
        most = image.integer("num_crops", 1, MAX_TILES, 1)
        settings.refuse_unread()
        return cls(pixels, block, side, most)

    def prepare(self, image: Image.Image) -> PreparedImage:
        lies = image.width >= image.height
        turned = image if lies else image.transpose(_TRANSPOSE)  # type: ignore[arg-type]
        ratio, scale = turned.width / turned.height, 1
        while scale * math.ceil(scale / ratio) <= self.most:
            scale += 1
        width = (scale - 1) * self.block
        height = int(width / ratio)
        if not height:
            raise InvalidParams(
                f"the picture of {image.width} x {image.height} pixels would be {width} long and less than one pixel "
                "in the other direction: cut it"
            )
        high = math.ceil(height / self.block) * self.block
        canvas = np.full((high, width, 3), 255, np.uint8)
        above = (high - height) // 2
        canvas[above : above + height] = array(self.pixels.resized(turned, height, width))
        tile = canvas if lies else np.ascontiguousarray(canvas.transpose(1, 0, 2))
        return PreparedImage((tile,), self.image_token * self.rows(*tile.shape[:2]))

    def rows(self, height: int, width: int) -> int:
        """One more behind each line, and one between the blocks and the whole."""
        lines, columns = (self.side * (length // self.block) for length in (height, width))
        return lines * (columns + 1) + 1 + self.side * (self.side + 1)

    def largest_tile(self) -> tuple[int, int]:
        """One block on top of another: behind each line there is one row more."""
        return self.most * self.block, self.block

    def marked(self, text: str) -> str:
        """Raises: InvalidParams for pictures that are not numbered from 1 on in their order."""
        numbers = [int(number) for number in _SPELLED.findall(text)]
        if numbers != list(range(1, len(numbers) + 1)):
            listed = ", ".join(map(str, numbers[:9])) + (", …" if len(numbers) > 9 else "")
            raise InvalidParams(
                f"the prompt's pictures are numbered {listed}; number them from 1 on, in the order in which they are "
                "given"
            )
        return _SPELLED.sub(self.placeholder, text)
