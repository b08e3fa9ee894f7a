"""NemotronHOmni: Nemotron 3 Nano Omni. A picture is one tile of its own proportions, of as many patches as are allowed.

Chat templates write <image> for a picture, which all of its rows are, between marks. Called by processor.py. Pictures
are resized by Pillow, whose colours are whole numbers from 0 to 255.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from albireo.errors import InvalidParams
from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings
from albireo.json_file import Fields

if TYPE_CHECKING:
    from PIL import Image

_START, _END = "<img>", "</img>"
_CLASSES = ("NemotronH_Omni_Reasoning_V3ImageProcessor", "NemotronH_Nano_Omni_Reasoning_V3ImageProcessor")
_OF_COLOURS = ("image_processor_type", "image_mean", "image_std", "resample", "rescale_factor")
_FIRST_NAMES = {"image_mean": "norm_mean", "image_std": "norm_std"}
#: Far above any tile, and any context.
_MAX_PATCHES, _MAX_CONTEXT = 2**24, 2**31
#: Tokens of a context that no picture has.
_BESIDE = 4


@dataclass(frozen=True, slots=True, eq=False)
class NemotronHOmni(HasPixels):
    """See ImageProcessor. Fields: patch: side of it. merge: that many in either direction become a row. fewest, most:
    patches of a tile."""

    pixels: Pixels
    patch: int
    merge: int
    fewest: int
    most: int

    image_token = placeholder = "<image>"

    @classmethod
    def read(cls, settings: Settings) -> NemotronHOmni:
        """Raises: ModelError, UnsupportedModel."""
        image = settings.image
        found = {key: image.raw(key) for key in _OF_COLOURS}
        # as they are called in files that were published first
        found |= {key: image.raw(old) for key, old in _FIRST_NAMES.items() if image.raw(old) is not None}
        of_colours = replace(settings, image=Fields(found, image.where))
        patch = image.integer("patch_size", 1, MAX_STEP, 16)
        settings.require_agreement(image, "patch_size", patch, settings.tower, "patch_size")
        ratio, of_model = (each.number("downsample_ratio", 1 / 16, 1.0, 0.5) for each in (image, settings.model))
        if ratio != of_model:
            image.fail("downsample_ratio", ratio, f"must be that of config.json, {of_model}")
        merge, fewest = round(1 / ratio), image.integer("min_num_patches", 1, _MAX_PATCHES, 1024)
        most = (image.integer("max_model_len", 8, _MAX_CONTEXT, 16384) - _BESIDE) * merge**2
        limit = image.integer("max_num_patches", 0, _MAX_PATCHES, 13312)
        most = max(min(most, limit) if limit else most, fewest)
        pixels = of_colours.pixels(_CLASSES, BICUBIC, CLIP_MEAN, CLIP_STD)
        settings.refuse_unread(("_downsample_factor",))
        return cls(pixels, patch, merge, fewest, most)

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor. Raises: InvalidParams for sides that are far too unequal."""
        high, wide = self.grid(image.height, image.width)
        if high * wide > self.most:  # of one that is longer than so many patches
            raise InvalidParams(
                f"a picture of {image.width} x {image.height} pixels would be {wide} x {high} patches, at most "
                f"{self.most} are read: its sides are too unequal, cut it into several"
            )
        tile = array(self.pixels.resized(image, high * self.patch, wide * self.patch))
        return PreparedImage((tile,), f"{_START}{self.image_token * self.rows(*tile.shape[:2])}{_END}")

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Lines and columns of patches of a picture's tile."""
        lines, columns = (round(side / self.patch + 0.5) for side in (height, width))
        factor = min(math.sqrt(self.most / (lines * columns)), 1.0)
        # one line of a long picture is too little for that many; there is one at least
        lines, columns = (max(1, math.floor(factor * side)) for side in (lines, columns))
        if self.most > self.fewest > lines * columns:
            factor = math.sqrt(self.fewest / (lines * columns))
            lines, columns = math.ceil(factor * lines), math.ceil(factor * columns)
        lines = self._whole(lines, columns)
        return lines, self._whole(columns, lines)

    def _whole(self, side: int, other: int) -> int:
        """As many as blocks fill: more, where that is not too many with so many on the other side."""
        rest = side % self.merge
        if not rest:
            return side
        more = side + self.merge - rest
        return more if more * other <= self.most else max(self.merge, side - rest)

    def rows(self, height: int, width: int) -> int:
        return (height // self.patch // self.merge) * (width // self.patch // self.merge)

    def largest_tile(self) -> tuple[int, int]:
        step = self.patch * self.merge
        return step, step * max(1, self.most // self.merge**2)
