"""HunyuanVl: HunyuanOCR. A picture is one tile, of as many pixels as are allowed.

Chat templates write a token before and one behind the one that becomes rows: one of each block, one behind each line of
them, and two around all. Called by processor.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

from albireo.images.pixels import array
from albireo.images.prepared import PreparedImage
from albireo.images.qwen2_vl import OfOneFrame
from albireo.images.settings import BICUBIC, Settings

if TYPE_CHECKING:
    from PIL import Image


class HunyuanVl(OfOneFrame):
    """See ImageProcessor."""

    __slots__ = ()
    image_token = placeholder = "<｜hy_place▁holder▁no▁102｜>"
    classes = ("HunYuanVLImageProcessor",)
    default_pixels = (512 * 512, 2048 * 2048)
    default_patch = 16
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {"spatial_patch_size": (1,), "cat_extra_token": (True,)}

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        found = super().read(settings)
        # its authors' code never asks for the filter that their file names
        return replace(found, pixels=replace(found.pixels, filter=BICUBIC))

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; the column behind a line counts as one of its grid."""
        height, width = self.size_of(image.height, image.width)
        tile, step = array(self.pixels.resized(image, height, width)), self.patch * self.merge
        grid = height // step, width // step + 1
        return PreparedImage((tile,), self.image_token * self.rows(height, width), grid)

    def rows(self, height: int, width: int) -> int:
        step = self.patch * self.merge
        return (height // step) * (width // step + 1) + 2
