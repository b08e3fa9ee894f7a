"""Glm4v: GLM-4.1V, 4.5V, 4.6V and GLM-OCR. A picture is one tile, of as many pixels as are allowed of its two frames.

Chat templates write <|begin_of_image|><|image|><|end_of_image|>; it is the middle that becomes rows. Called by
processor.py. How a tile is cut into patches, and repeated in time, is the tower's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from albireo.images.qwen2_vl import Qwen2VL, nearest_size


@dataclass(frozen=True, slots=True, eq=False)
class Glm4v(Qwen2VL):
    """See ImageProcessor."""

    image_token = placeholder = "<|image|>"
    classes: ClassVar[tuple[str, ...]] = ("Glm4vImageProcessor", "Glm46VImageProcessor")
    default_pixels: ClassVar[tuple[int, int]] = (112 * 112, 28 * 28 * 15000)
    may_say_pixels: ClassVar[bool] = False

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Of a picture smaller than a step, it is made as large first. Raises: InvalidParams, as Qwen2VL."""
        step, given = self.patch * self.merge, (height, width)
        if min(given) < step:
            scale = max(step / height, step / width)
            height, width = int(height * scale), int(width * scale)
        return nearest_size(height, width, step, self.fewest, self.most, self.frames, given)

    def largest_tile(self) -> tuple[int, int]:
        step = self.patch * self.merge
        return step, step * max(1, self.most // self.frames // step**2)
