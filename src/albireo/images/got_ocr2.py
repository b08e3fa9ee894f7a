"""GotOcr2: GOT-OCR 2.0. Whatever its proportions, a picture is resized to the one size that the tower reads.

Prompts write <img><imgpad></img> for a picture; it is the middle that becomes rows. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from albireo.images.pixels import Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

#: Patches on a side of what becomes a row.
_MERGED = 4


@dataclass(frozen=True, slots=True, eq=False)
class GotOcr2:
    """See ImageProcessor. Fields: side: of the tile. num_rows: of it."""

    pixels: Pixels
    side: int
    num_rows: int

    image_token = placeholder = "<imgpad>"

    @classmethod
    def read(cls, settings: Settings) -> GotOcr2:
        """Raises: ModelError, UnsupportedModel."""
        image, tower = settings.image, settings.tower
        side, width = settings.size("height", "width", default=384)
        if side != width:
            image.unsupported("size", image.raw("size"), "tiles are squares")
        settings.require_agreement(image, "size", side, tower, "image_size")
        patch = tower.integer("patch_size", 1, MAX_STEP, 16)
        pixels = settings.pixels(("GotOcr2ImageProcessor",), BICUBIC, CLIP_MEAN, CLIP_STD)
        # of crops, which the processor makes where a caller asks for them
        settings.refuse_unread(("crop_to_patches", "min_patches", "max_patches"))
        return cls(pixels, side, (side // patch // _MERGED) ** 2)

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        tile = array(self.pixels.resized(image, self.side, self.side))
        return PreparedImage((tile,), self.image_token * self.num_rows)

    def rows(self, height: int, width: int) -> int:
        return self.num_rows

    def largest_tile(self) -> tuple[int, int]:
        return self.side, self.side

    def normalized(self, tile: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.pixels.normalized(tile)
