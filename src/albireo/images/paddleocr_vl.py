"""PaddleOcrVl: PaddleOCR-VL. A picture is one tile, of as many pixels as are allowed.

Chat templates write <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>; it is the middle that becomes rows. Called by
processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from albireo.images.qwen2_vl import Qwen2VL, nearest_size
from albireo.images.settings import MAX_STEP, Settings


@dataclass(frozen=True, slots=True, eq=False)
class PaddleOcrVl(Qwen2VL):
    """See ImageProcessor."""

    image_token = placeholder = "<|IMAGE_PLACEHOLDER|>"
    classes: ClassVar[tuple[str, ...]] = ("PaddleOCRVLImageProcessor",)
    default_pixels: ClassVar[tuple[int, int]] = (384 * 384, 1536 * 1536)

    @classmethod
    def frames_of(cls, settings: Settings) -> int:
        """One, whatever config.json says of videos. Raises: UnsupportedModel for another number."""
        found = settings.image.integer("temporal_patch_size", 1, MAX_STEP, 1)
        if found != 1:
            settings.image.unsupported("temporal_patch_size", found, "the tower reads patches of one frame")
        return found

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Of a picture smaller than a step, it is made as large first. Raises: InvalidParams, as Qwen2VL."""
        step, given = self.patch * self.merge, (height, width)
        if height < step:
            height, width = step, round(width * step / height)
        if width < step:
            height, width = round(height * step / width), step
        return nearest_size(height, width, step, self.fewest, self.most, given=given)
