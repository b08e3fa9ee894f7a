"""KimiK25: Kimi K2.5 and K2.6. A picture is one tile of its own proportions, never enlarged, of as many patches as are
allowed; what is left of the last blocks at the right and below is black.

Chat templates write <|media_pad|> between marks, which all of its rows are. Called by processor.py. Pictures are
resized by Pillow, as their authors do it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from albireo.images.pixels import HasPixels, Pixels, array, scaled_at_once
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, HALF, MAX_STEP, Settings
from albireo.json_file import Fields, keys

if TYPE_CHECKING:
    from PIL import Image

_CLASSES = ("Kimi_K25ImageProcessor",)
#: Where its authors have all of it, and what they call keys.
_PART = "media_proc_cfg"
_FIRST_NAMES = {"max_patches": "in_patch_limit", "merge_size": "merge_kernel_size"}
#: Of videos; and of whose code it is, which is never run.
_OF_VIDEOS = keys(
    "in_patch_limit_each_frame in_patch_limit_video sample_fps max_num_frames_each_video temporal_merge_kernel_size",
    "timestamp_mode config_type",
)
#: Far above any tile.
_MAX_PATCHES = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class KimiK25(HasPixels):
    """See ImageProcessor. Fields: patch: side of it. merge: that many in either direction become a row. most: patches
    of a picture, before blocks are filled. longest: patches on a side of one."""

    pixels: Pixels
    patch: int
    merge: int
    most: int
    longest: int

    image_token = placeholder = "<|media_pad|>"

    @classmethod
    def read(cls, settings: Settings) -> KimiK25:
        """Raises: ModelError, UnsupportedModel."""
        settings, longest = _as_transformers_has_it(settings)
        image = settings.image
        if longest is None:
            high, wide = settings.size("max_height", "max_width", default=512)
            if high != wide:
                image.unsupported("size", image.raw("size"), "as many patches are allowed on either side")
            longest = high
        found = cls(
            settings.pixels(_CLASSES, BICUBIC, HALF, HALF, scaled_at_once),
            patch=image.integer("patch_size", 1, MAX_STEP, 14),
            merge=image.integer("merge_size", 1, MAX_STEP, 2),
            most=image.integer("max_patches", 1, _MAX_PATCHES, 16384),
            longest=longest,
        )
        settings.require_agreement(image, "patch_size", found.patch, settings.tower, "patch_size")
        merged = settings.tower.raw("merge_kernel_size")
        if merged not in (None, [found.merge] * 2):
            image.fail("merge_size", found.merge, f"must be that of config.json, merge_kernel_size={merged}")
        if found.longest % found.merge:
            image.fail("size", found.longest, f"must be a multiple of merge_size={found.merge}, in patches")
        settings.refuse_unread()
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        height, width = self.size_of(image.height, image.width)
        step = self.patch * self.merge
        tile = np.zeros((-(-height // step) * step, -(-width // step) * step, 3), np.uint8)
        tile[:height, :width] = array(self.pixels.resized(image, height, width))
        return PreparedImage((tile,), self.image_token * self.rows(*tile.shape[:2]))

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of what a picture is made smaller to."""
        longest = self.longest * self.patch
        count = max(1.0, height // self.patch) * max(1.0, width // self.patch)
        scale = min(1.0, math.sqrt(self.most / count), longest / height, longest / width)
        tall, wide = (min(max(1, int(side * scale)), longest) for side in (height, width))
        return tall, wide

    def rows(self, height: int, width: int) -> int:
        return (height // self.patch // self.merge) * (width // self.patch // self.merge)

    def largest_tile(self) -> tuple[int, int]:
        """No tile has more patches: patches that pixels fill are at most so many, and blocks that they begin more."""
        best, step = (1, self.longest // self.merge), self.patch * self.merge
        for lines in range(2, best[1] + 1):
            filled = self.merge * (lines - 1) - 1
            across = min(self.longest, self.most / filled + 1) if filled else self.longest
            best = max(best, (lines, math.ceil(across / self.merge)), key=math.prod)
        return best[0] * step, best[1] * step


def _as_transformers_has_it(settings: Settings) -> tuple[Settings, int | None]:
    """What its authors' file says, by transformers' names, and how many patches it allows on a side; of others what
    they say, and None. Raises: UnsupportedModel for what is not computed."""
    part = settings.image.table(_PART)
    if part is None:
        return settings, None
    where = f"{settings.image.where}: {_PART}"
    first = Fields(part, where)
    longest = first.integer("patch_limit_on_one_side", 1, _MAX_PATCHES, 512)
    read = ("patch_size", "image_mean", "image_std")
    found = {key: first.raw(_FIRST_NAMES.get(key, key)) for key in (*read, *_FIRST_NAMES)}
    first.refuse_unread(_OF_VIDEOS, {})
    settings.image.refuse_unread(keys("auto_map processor_class image_processor_type"), {})
    return replace(settings, image=Fields(found, where)), longest
