"""Janus and DeepSeekVl: the longer side of a picture gets the tile's length, and what the other lacks is filled with
one colour at both ends.

Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_SIDE, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

#: What its processor puts before a chat, where its file says so: what the model was trained with.
_OPENING = (
    "You are a helpful language and vision assistant. "
    "You are able to understand the visual content that the user provides, "
    "and assist the user with a variety of tasks using natural language.\n\n"
)


@dataclass(frozen=True, slots=True, eq=False)
class Janus(HasSquares):
    """See ImageProcessor and OpensChats. Fields: side: of the tile. least: that the shorter side has, before it is
    filled. num_rows: of the tile. colour: it is filled with."""

    pixels: Pixels
    side: int
    least: int
    num_rows: int
    colour: NDArray[np.uint8]
    opening: str

    image_token = placeholder = "<image_placeholder>"
    around: ClassVar[tuple[str, str]] = ("<begin_of_image>", "<end_of_image>")
    classes: ClassVar[tuple[str, ...]] = ("JanusImageProcessor",)
    #: Pixels on a side of a patch, where nothing is said.
    default_patch: ClassVar[int] = 16

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image, tower, processor = settings.image, settings.tower, settings.processor
        side = settings.square(384)
        settings.require_agreement(image, "size", side, tower, "image_size")
        num_rows = (side // tower.integer("patch_size", 1, MAX_STEP, cls.default_patch)) ** 2
        settings.require_rows(processor, "num_image_tokens", 576, num_rows, side)
        if not image.flag("do_pad", True):
            image.unsupported("do_pad", False, "the tower reads squares")
        least = image.integer("min_size", 1, MAX_SIDE, 14)
        # a colour is made of it
        mean = image.numbers("image_mean", 0.0, 1.0) if image.raw("image_mean") is not None else CLIP_MEAN
        colour = np.array([int(each * 255) for each in mean], np.uint8)
        pixels = settings.pixels(cls.classes, BICUBIC, CLIP_MEAN, CLIP_STD)
        opening = _OPENING if processor.flag("use_default_system_prompt", False) else ""
        settings.refuse_unread(("background_color",))
        return cls(pixels, side, min(least, side), num_rows, colour, opening)

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; of sides that are too unequal the shorter gets longer than in proportion."""
        ratio = self.side / max(image.height, image.width)
        height, width = (max(round(side * ratio), self.least) for side in (image.height, image.width))
        tile = np.empty((self.side, self.side, 3), np.uint8)
        tile[:] = self.colour
        top, left = (self.side - height) // 2, (self.side - width) // 2
        tile[top : top + height, left : left + width] = array(self.pixels.resized(image, height, width))
        return PreparedImage((tile,), self.text())

    def text(self) -> str:
        """What stands for any picture."""
        begin, end = self.around
        return f"{begin}{self.image_token * self.num_rows}{end}"

    def rows(self, height: int, width: int) -> int:
        return self.num_rows


class DeepSeekVl(Janus):
    """DeepSeek-VL, whose tower is SigLIP's own. See ImageProcessor."""

    __slots__ = ()
    around = ("", "")
    classes = ("DeepseekVLImageProcessor",)
