"""Llava: as CLIP reads pictures. The shorter side gets the tile's length, and what the other has more is cut off at
both ends. Those of a Pixtral are read as Mistral 3 does.

Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from albireo.errors import ModelError
from albireo.images.mistral3 import Mistral3
from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_ROWS, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

#: Of a picture before it is cut; larger only where lines of few pixels are made high.
_MOST_PIXELS = 2**25
_CLASSES = ("CLIPImageProcessor", "LlavaImageProcessor")


@dataclass(frozen=True, slots=True, eq=False)
class Llava(HasSquares):
    """See ImageProcessor. Fields: shorter: what the shorter side becomes. side: of the tile. num_rows: of it."""

    pixels: Pixels
    shorter: int
    side: int
    num_rows: int
    image_token: str

    @property
    def placeholder(self) -> str:
        return self.image_token

    @classmethod
    def read(cls, settings: Settings) -> Llava | Mistral3:
        """Raises: ModelError, UnsupportedModel."""
        if settings.tower.raw("model_type") == "pixtral":
            return Mistral3.read(settings)
        image, processor, tower = settings.image, settings.processor, settings.tower
        (shorter,) = settings.size("shortest_edge", default=224)
        height, width = settings.size("height", "width", default=224, key="crop_size")
        if height != width or width > shorter:
            image.unsupported("crop_size", image.raw("crop_size"), f"a square within size.shortest_edge={shorter}")
        if image.flag("do_pad", False):
            image.unsupported("do_pad", True, "pictures are cut to squares, not padded")
        patch = tower.integer("patch_size", 1, MAX_STEP, 14)
        is_full = settings.model.text("vision_feature_select_strategy", "default") == "full"
        num_rows = (width // patch) ** 2 + is_full
        settings.require_agreement(image, "crop_size", width, tower, "image_size")
        own_patch = processor.integer("patch_size", 1, MAX_STEP, patch)
        settings.require_agreement(processor, "patch_size", own_patch, tower, "patch_size")
        said = processor.text("vision_feature_select_strategy", "full" if is_full else "default")
        added = processor.integer("num_additional_image_tokens", 0, MAX_ROWS, 1)
        if (said == "full") != is_full or added != 1:
            raise ModelError(
                f"{processor.where}: vision_feature_select_strategy={said} and num_additional_image_tokens={added} are "
                f"not what the tower of config.json gives, {num_rows} rows of {width} x {width} pixels"
            )
        found = cls(
            settings.pixels(_CLASSES, BICUBIC, CLIP_MEAN, CLIP_STD),
            shorter,
            width,
            num_rows,
            processor.text("image_token", "<image>"),
        )
        settings.refuse_unread((), {"do_center_crop": (True,)})
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; of sides that are too unequal the larger gets shorter than in proportion."""
        short, longest = min(image.height, image.width), max(self.shorter, _MOST_PIXELS // self.shorter)
        height, width = (min(int(self.shorter * side / short), longest) for side in (image.height, image.width))
        top, left = (height - self.side) // 2, (width - self.side) // 2
        whole = array(self.pixels.resized(image, height, width))
        tile = np.ascontiguousarray(whole[top : top + self.side, left : left + self.side])
        return PreparedImage((tile,), self.image_token * self.num_rows)

    def rows(self, height: int, width: int) -> int:
        return self.num_rows
