"""Ernie45VlMoe: ERNIE 4.5 VL. A picture is one tile, of as many pixels as are allowed.

Chat templates write <|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>, or in the middle, which becomes rows, letters of
the authors. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from albireo.images.qwen2_vl import OfOneFrame
from albireo.images.settings import Settings
from albireo.json_file import Fields

#: What the authors' file says of pixels, which their own processor never asks; and of videos.
_NEVER_MEANT = ("min_pixels", "max_pixels", "size", "temporal_conv_size", "spatial_conv_size")


@dataclass(frozen=True, slots=True, eq=False)
class Ernie45VlMoe(OfOneFrame):
    """See ImageProcessor."""

    image_token = placeholder = "<|IMAGE_PLACEHOLDER|>"
    # of transformers, of it at first, and of the authors
    classes: ClassVar[tuple[str, ...]] = (
        *("Ernie4_5_VLMoeImageProcessor", "Ernie4_5_VL_MoeImageProcessor"),
        *("Ernie4_5_VLImageProcessor", "Ernie_45T_VLImageProcessor"),
    )
    default_pixels: ClassVar[tuple[int, int]] = (56 * 56, 28 * 28 * 6177)
    may_say_pixels: ClassVar[bool] = False

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        if cls._is_of_authors(settings.image):
            for key in _NEVER_MEANT:
                settings.image.raw(key)
        return super(Ernie45VlMoe, cls).read(settings)

    @classmethod
    def said_size(cls, image: Fields) -> dict[str, Any] | None:
        return None if cls._is_of_authors(image) else image.table("size")

    @classmethod
    def _is_of_authors(cls, image: Fields) -> bool:
        return image.raw("image_processor_type") in cls.classes[2:]
