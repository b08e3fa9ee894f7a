"""PaddleOcrVl: PaddleOCR-VL. A picture is one tile, of as many pixels as are allowed.

Chat templates write <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>; it is the middle that becomes rows. Called by
processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from albireo.images.qwen2_vl import OfOneFrame, nearest_size


@dataclass(frozen=True, slots=True, eq=False)
class PaddleOcrVl(OfOneFrame):
    """See ImageProcessor."""

    image_token = placeholder = "<|IMAGE_PLACEHOLDER|>"
    classes: ClassVar[tuple[str, ...]] = ("PaddleOCRVLImageProcessor",)
    default_pixels: ClassVar[tuple[int, int]] = (384 * 384, 1536 * 1536)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Of a picture smaller than a step, it is made as large first. Raises: InvalidParams, as Qwen2VL."""
        step, given = self.patch * self.merge, (height, width)
        if height < step:
            height, width = step, round(width * step / height)
        if width < step:
            height, width = round(height * step / width), step
        return nearest_size(height, width, step, self.fewest, self.most, given=given)
