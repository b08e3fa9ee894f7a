"""KimiVl: a picture is one tile of its own proportions, never enlarged, of as many patches as are allowed; what is left
of the last blocks at the right and below is black.

Chat templates write <|media_pad|> between marks, which all of its rows are. Called by processor.py. Pictures are
resized by Pillow, as their authors do it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from albireo.errors import InvalidParams
from albireo.images.pixels import HasPixels, Pixels, array, scaled_first
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings
from albireo.json_file import keys

if TYPE_CHECKING:
    from PIL import Image

_CLASSES = ("KimiVLImageProcessor",)
#: Patches on a side of what its rotations reach.
_LONGEST = 511
_MAX_PATCHES = 2**20
#: Rows as they were once counted, which says nothing.
_OLD = keys("num_pooled_tokens")


@dataclass(frozen=True, slots=True, eq=False)
class KimiVl(HasPixels):
    """See ImageProcessor. Fields: patch: side of it. merge: that many in either direction become a row. most: patches
    of a picture, before blocks are filled."""

    pixels: Pixels
    patch: int
    merge: int
    most: int

    image_token = placeholder = "<|media_pad|>"

    @classmethod
    def read(cls, settings: Settings) -> KimiVl:
        """Raises: ModelError, UnsupportedModel."""
        image = settings.image
        merged = image.raw("merge_kernel_size")
        merged = [2, 2] if merged is None else merged
        side = merged[0] if isinstance(merged, list) and merged else None
        if type(side) is not int or not 1 <= side <= MAX_STEP or merged != [side, side]:
            image.unsupported("merge_kernel_size", merged, "supported: two equal numbers")
        found = cls(
            settings.pixels(_CLASSES, BICUBIC, CLIP_MEAN, CLIP_STD, scaled_first),
            patch=image.integer("patch_size", 1, MAX_STEP, 14),
            merge=side,
            most=image.integer("in_token_limit", 1, _MAX_PATCHES, 4096),
        )
        if not image.flag("pad_input", False):
            image.unsupported("pad_input", False, "the last blocks are filled, as in published files")
        settings.require_agreement(image, "patch_size", found.patch, settings.tower, "patch_size")
        of_tower = settings.tower.raw("merge_kernel_size")
        if of_tower not in (None, merged):
            image.fail("merge_kernel_size", merged, f"must be that of config.json, {of_tower}")
        settings.refuse_unread(_OLD)
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor. Raises: InvalidParams for a picture of more patches on a side than are rotated."""
        height, width = self.size_of(image.height, image.width)
        step = self.patch * self.merge
        tall, wide = (-(-side // step) * step for side in (height, width))
        if max(tall, wide) // self.patch > _LONGEST:
            raise InvalidParams(
                f"a picture of {image.width} x {image.height} pixels is too long in one direction: it would be "
                f"{wide} x {tall} pixels; at most {_LONGEST} patches of {self.patch} pixels are read on a side"
            )
        tile = np.zeros((tall, wide, 3), np.uint8)
        tile[:height, :width] = array(self.pixels.resized(image, height, width))
        return PreparedImage((tile,), self.image_token * self.rows(tall, wide))

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what a picture is made smaller to."""
        count = (height // self.patch) * (width // self.patch)
        if count <= self.most:
            return height, width
        scale = math.sqrt(self.most / count)
        return max(1, int(height * scale)), max(1, int(width * scale))

    def rows(self, height: int, width: int) -> int:
        return (height // self.patch // self.merge) * (width // self.patch // self.merge)

    def largest_tile(self) -> tuple[int, int]:
        """No tile has more patches: those that a picture fills are at most so many, but for roots that are rounded, and
        blocks that they begin more."""
        step, longest = self.patch * self.merge, _LONGEST // self.merge
        best = (1, longest)
        for lines in range(2, longest + 1):
            filled = self.merge * (lines - 1) - 1
            across = min(_LONGEST, self.most / filled + 1) if filled else _LONGEST
            best = max(best, (lines, min(longest, math.ceil(across / self.merge))), key=math.prod)
        return best[0] * step, best[1] * step
