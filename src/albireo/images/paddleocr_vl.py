"""PaddleOcrVl and Keye: PaddleOCR-VL and Keye-VL. A picture is one tile, of as many pixels as are allowed.

Chat templates of the first write <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>; it is the middle that becomes
rows. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from albireo.images.qwen2_vl import OfOneFrame, nearest_size
from albireo.json_file import Fields


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


class Keye(PaddleOcrVl):
    """See ImageProcessor. Templates write <|vision_start|><|image_pad|><|vision_end|>."""

    __slots__ = ()
    image_token = placeholder = "<|image_pad|>"
    classes = ("SiglipImageProcessor", "KeyeImageProcessor")
    default_pixels = (28 * 28 * 4, 28 * 28 * 1280)
    #: Of videos.
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {"temporal_conv_size": (1,)}

    @classmethod
    def said_size(cls, image: Fields) -> dict[str, Any] | None:
        """By its authors' names of either."""
        names = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        size = image.table("size")
        return None if size is None else {names.get(key, key): value for key, value in size.items()}
