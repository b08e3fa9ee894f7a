"""Mistral3: Pixtral's processor. A picture is one tile, at most so long; its rows stand line by line, with breaks.

Called by processor.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from albireo.errors import InvalidParams
from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, slots=True, eq=False)
class Mistral3(HasPixels):
    """See ImageProcessor.

    Fields:
        longest: either side of a tile at most. step: side in pixels of what becomes a row.
        line_break, end: stand behind each line of rows, and behind the last.
    """

    pixels: Pixels
    longest: int
    step: int
    image_token: str
    line_break: str
    end: str

    #: Where files say nothing: sides of a patch, and of what becomes a row in patches; tokens.
    default_sides: ClassVar[tuple[int, int]] = (16, 1)
    default_tokens: ClassVar[tuple[str, str, str]] = ("[IMG]", "[IMG_BREAK]", "[IMG_END]")

    @property
    def placeholder(self) -> str:
        return self.image_token

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        processor = settings.processor
        patch = processor.integer("patch_size", 1, MAX_STEP, cls.default_sides[0])
        merge = processor.integer("spatial_merge_size", 1, MAX_STEP, cls.default_sides[1])
        settings.require_agreement(processor, "patch_size", patch, settings.tower, "patch_size")
        settings.require_agreement(processor, "spatial_merge_size", merge, settings.model, "spatial_merge_size")
        (longest,) = settings.size("longest_edge", default=1024)
        cls.check_sides(settings, patch, merge)
        of_row, of_break, of_end = cls.default_tokens
        found = cls(
            settings.pixels(("PixtralImageProcessor",), BICUBIC, CLIP_MEAN, CLIP_STD),
            longest=longest,
            step=patch * merge,
            image_token=processor.text("image_token", of_row),
            line_break=processor.text("image_break_token", of_break),
            end=processor.text("image_end_token", of_end),
        )
        settings.refuse_unread(("patch_size",))
        return found

    @classmethod
    def check_sides(cls, settings: Settings, patch: int, merge: int) -> None:
        """The image processor's own patch_size is never asked."""

    def prepare(self, image: Image.Image) -> PreparedImage:
        height, width = self._size(image.height, image.width)
        tile = array(self.pixels.resized(image, height, width))
        return PreparedImage((tile,), self.text(height // self.step, width // self.step))

    def text(self, lines: int, columns: int) -> str:
        """What stands for so many rows."""
        return self.line_break.join([self.image_token * columns] * lines) + self.end

    def rows(self, height: int, width: int) -> int:
        return (height // self.step) * (width // self.step)

    def largest_tile(self) -> tuple[int, int]:
        side = -(-self.longest // self.step) * self.step
        return side, side

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of a tile: no side beyond longest, then up to multiples of step."""
        ratio = max(height / self.longest, width / self.longest)
        sides = [math.floor(side / ratio) if ratio > 1 else side for side in (height, width)]
        if min(sides) < 1:
            raise InvalidParams(
                f"a picture of {width} x {height} pixels is too long in one direction: nothing of the other is left "
                f"when it has {self.longest} pixels, which are read at most"
            )
        tall, wide = (-(-side // self.step) * self.step for side in sides)
        return tall, wide
