"""Ernie45VlMoe: ERNIE 4.5 VL. A picture is one tile, of as many pixels as are allowed.

Chat templates write <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>; it is the middle that becomes rows. Called by
processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from albireo.images.qwen2_vl import Qwen2VL
from albireo.images.settings import MAX_STEP, Settings


@dataclass(frozen=True, slots=True, eq=False)
class Ernie45VlMoe(Qwen2VL):
    """See ImageProcessor."""

    image_token = placeholder = "<|IMAGE_PLACEHOLDER|>"
    classes: ClassVar[tuple[str, ...]] = ("Ernie4_5_VLMoeImageProcessor", "Ernie4_5_VL_MoeImageProcessor")
    default_pixels: ClassVar[tuple[int, int]] = (56 * 56, 28 * 28 * 6177)
    may_say_pixels: ClassVar[bool] = False

    @classmethod
    def frames_of(cls, settings: Settings) -> int:
        """One, whatever is said of videos. Raises: UnsupportedModel for another number."""
        found = settings.image.integer("temporal_patch_size", 1, MAX_STEP, 1)
        if found != 1:
            settings.image.unsupported("temporal_patch_size", found, "the tower reads patches of one frame")
        return found
