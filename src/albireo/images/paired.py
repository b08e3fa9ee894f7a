"""CLIP and SigLIP: a picture is one square tile, which is all of it where the file says nothing of a cut.

Called by processor.py. There is no token of pictures: a prompt is a text or a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from albireo.errors import UnsupportedModel
from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, HALF, MAX_SIDE, Settings

if TYPE_CHECKING:
    from PIL import Image

#: Of a picture before it is cut; larger only where lines of few pixels are made high.
_MOST_PIXELS = 2**25
#: Names by which older files say who prepares.
_OLDER = ("CLIPFeatureExtractor", "SiglipFeatureExtractor")


@dataclass(frozen=True, slots=True, eq=False)
class Paired(HasSquares):
    """See ImageProcessor. Fields: shorter: what the shorter side becomes before the middle is cut out; 0: both sides
    become the tile's. side: of the tile."""

    pixels: Pixels
    shorter: int
    side: int

    image_token = placeholder = ""

    @classmethod
    def read(cls, settings: Settings) -> Paired:
        """Raises: ModelError, UnsupportedModel."""
        is_clip = settings.model.text("model_type") == "clip"
        image = settings.image
        image.one_of("feature_extractor_type", _OLDER, _OLDER[0])
        shorter, side = _cut(settings) if image.flag("do_center_crop", is_clip) else (0, _whole(settings))
        settings.require_agreement(image, "size", side, settings.tower, "image_size")
        name, mean, std = ("CLIP", CLIP_MEAN, CLIP_STD) if is_clip else ("Siglip", HALF, HALF)
        classes = f"{name}ImageProcessor", f"{name}FeatureExtractor"
        found = cls(settings.pixels(classes, BICUBIC, mean, std), shorter, side)
        settings.refuse_unread()
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; of sides that are too unequal the larger gets shorter than in proportion."""
        if not self.shorter:
            return PreparedImage((array(self.pixels.resized(image, self.side, self.side)),), "")
        least, longest = min(image.height, image.width), max(self.shorter, _MOST_PIXELS // self.shorter)
        height, width = (min(int(self.shorter * side / least), longest) for side in (image.height, image.width))
        top, left = (height - self.side) // 2, (width - self.side) // 2
        whole = array(self.pixels.resized(image, height, width))
        return PreparedImage((np.ascontiguousarray(whole[top : top + self.side, left : left + self.side]),), "")

    def rows(self, height: int, width: int) -> int:
        return 1


def _cut(settings: Settings) -> tuple[int, int]:
    """What the shorter side becomes, and the side of what is cut out of the middle."""
    shorter, side = _number(settings, "size", "shortest_edge"), _number(settings, "crop_size")
    if side > shorter:
        settings.image.unsupported("crop_size", side, f"a square within size={shorter}")
    return shorter, side


def _whole(settings: Settings) -> int:
    return _number(settings, "size")


def _number(settings: Settings, key: str, name: str | None = None) -> int:
    """Of pixels, which older files say as a number. Args: name: what a table has of it; None: a square."""
    given: Any = settings.image.raw(key)
    if isinstance(given, int):
        return settings.image.integer(key, 1, MAX_SIDE)
    if name is not None:
        (found,) = settings.size(name, default=224, key=key)
        return found
    height, width = settings.size("height", "width", default=224, key=key)
    if height != width:
        raise UnsupportedModel(f"{settings.image.where}: {key} is {height} x {width}; tiles are squares")
    return height
