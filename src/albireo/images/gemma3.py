"""Gemma3: whatever its proportions, a picture is resized to the one size that the tower reads.

Called by processor.py. Pan and scan, which reads parts of long pictures once more, is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BILINEAR, HALF, MAX_ROWS, Settings
from albireo.json_file import keys

if TYPE_CHECKING:
    from PIL import Image

#: How it would be done; and a copy of the processor's key, which the image processor does not read.
_OF_PAN_AND_SCAN = keys(
    "pan_and_scan_min_crop_size pan_and_scan_max_num_crops pan_and_scan_min_ratio_to_activate image_seq_length"
)


@dataclass(frozen=True, slots=True, eq=False)
class Gemma3(HasPixels):
    """See ImageProcessor. Fields: height, width: of the tile. num_rows: that the tower gives of it."""

    pixels: Pixels
    height: int
    width: int
    num_rows: int

    image_token = "<image_soft_token>"
    placeholder = "<start_of_image>"
    _END = "<end_of_image>"

    @classmethod
    def read(cls, settings: Settings) -> Gemma3:
        """Raises: ModelError, UnsupportedModel."""
        height, width = settings.size("height", "width", default=224)
        found = cls(
            settings.pixels(("Gemma3ImageProcessor",), BILINEAR, HALF, HALF),
            height,
            width,
            num_rows=settings.processor.integer("image_seq_length", 1, MAX_ROWS, 256),
        )
        image, processor = settings.image, settings.processor
        for name, side in (("size.height", height), ("size.width", width)):
            settings.require_agreement(image, name, side, settings.tower, "image_size")
        settings.require_agreement(processor, "image_seq_length", found.num_rows, settings.model, "mm_tokens_per_image")
        settings.refuse_unread(_OF_PAN_AND_SCAN)
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        tile = array(self.pixels.resized(image, self.height, self.width))
        text = f"\n\n{self.placeholder}{self.image_token * self.num_rows}{self._END}\n\n"
        return PreparedImage((tile,), text)

    def rows(self, height: int, width: int) -> int:
        return self.num_rows

    def largest_tile(self) -> tuple[int, int]:
        return self.height, self.width
