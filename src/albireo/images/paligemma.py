"""PaliGemma: whatever its proportions, a picture is resized to the one size that the tower reads.

Called by processor.py. What stands around pictures in a prompt, api/media/images.py knows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, HALF, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class PaliGemma(HasSquares):
    """See ImageProcessor. Fields: side: of the tile. num_rows: of it."""

    pixels: Pixels
    side: int
    num_rows: int

    image_token = placeholder = "<image>"

    @classmethod
    def read(cls, settings: Settings) -> PaliGemma:
        """Raises: ModelError, UnsupportedModel."""
        image, tower = settings.image, settings.tower
        side = settings.square(224)
        settings.require_agreement(image, "size", side, tower, "image_size")
        num_rows = (side // tower.integer("patch_size", 1, MAX_STEP, 16)) ** 2
        settings.require_rows(image, "image_seq_length", num_rows, num_rows, side)
        pixels = settings.pixels(("SiglipImageProcessor",), BICUBIC, HALF, HALF)
        settings.refuse_unread()
        return cls(pixels, side, num_rows)

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        tile = array(self.pixels.resized(image, self.side, self.side))
        return PreparedImage((tile,), self.image_token * self.num_rows)

    def rows(self, height: int, width: int) -> int:
        return self.num_rows
