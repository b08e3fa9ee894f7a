"""Cohere2Vision and AyaVision: square tiles in a grid, and last the whole picture in one, as InternVL has them, with
marks of their own.

Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from albireo.errors import ModelError
from albireo.images.grids import MAX_TILES, Grid, grids, least_enlarged
from albireo.images.internvl import InternVL
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings

_START, _END, _BREAK = "<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_LINE_BREAK|>"
_ROW = "<|IMG_PATCH|>"
#: What Aya's processor calls them.
_NAMES = {
    "start_of_img_token": (_START,),
    "end_of_img_token": (_END,),
    "img_patch_token": (_ROW,),
    "img_line_break_token": (_BREAK,),
    "tile_token": ("TILE",),
    "tile_global_token": ("TILE_GLOBAL",),
    "image_token": ("<image>",),
}


@dataclass(frozen=True, slots=True, eq=False)
class Cohere2Vision(InternVL):
    """See ImageProcessor. A picture gets the grid that it need be enlarged for the least."""

    image_token = placeholder = _ROW

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image = settings.image
        side, own = _side(settings, 512), image.integer("patch_size", 1, MAX_STEP, 16)
        merged = _merged(settings, side)
        if own != merged:
            raise ModelError(
                f"{image.where}: patch_size is {own}, which are rows on a side of a tile, but the tower of config.json "
                f"gives {merged}; both must be of one checkpoint"
            )
        # how few they may be, nothing asks
        most = image.integer("max_patches", 1, MAX_TILES, 12)
        is_cut = image.flag("crop_to_patches", True) and most > 1
        pixels = settings.pixels(("Cohere2VisionImageProcessor",), BICUBIC, CLIP_MEAN, CLIP_STD)
        factor = settings.model.integer("downsample_factor", 1, 64, 2)
        neutral = {**_NAMES, "img_size": (side,), "downsample_factor": (factor,)}
        settings.refuse_unread(("min_patches",), neutral)
        return cls(pixels, side, merged**2, grids(1, most) if is_cut else ((1, 1),))

    def grid(self, height: int, width: int) -> Grid:
        return least_enlarged(self.grids, height, width, self.side)

    def text(self, num_tiles: int) -> str:
        return f"{_START}{(self.image_token * self.num_rows + _BREAK) * num_tiles}{_END}"


@dataclass(frozen=True, slots=True, eq=False)
class AyaVision(InternVL):
    """See ImageProcessor. Chat templates write <image> for a picture."""

    image_token, placeholder = _ROW, "<image>"

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image, processor = settings.image, settings.processor
        side = _side(settings, 384)
        merged = _merged(settings, side)
        step = processor.integer("patch_size", 1, MAX_STEP, 28) * processor.integer("downsample_factor", 1, 64, 1)
        said = processor.integer("img_size", 1, 2**14, 364) // step
        if said != merged:
            raise ModelError(
                f"{processor.where}: img_size, patch_size and downsample_factor mean {said} rows on a side of a tile, "
                f"but the tower of config.json gives {merged}; both must be of one checkpoint"
            )
        fewest, most = image.integer("min_patches", 1, MAX_TILES, 1), image.integer("max_patches", 1, MAX_TILES, 12)
        if fewest > most:
            image.fail("min_patches", fewest, f"must be at most max_patches={most}")
        pixels = settings.pixels(("GotOcr2ImageProcessor",), BICUBIC, CLIP_MEAN, CLIP_STD)
        # pictures are cut for this model whatever its file says
        settings.refuse_unread(("crop_to_patches",), {**_NAMES, "vision_feature_select_strategy": ("full",)})
        return cls(pixels, side, merged**2, grids(fewest, most) if most > 1 else ())

    def text(self, num_tiles: int) -> str:
        rows = self.image_token * self.num_rows
        parts = "".join(f"TILE_{number}{rows}" for number in range(1, num_tiles))
        return f"{_START}{parts}TILE_GLOBAL{rows}{_END}"


def _side(settings: Settings, default: int) -> int:
    """Of a tile. Raises: UnsupportedModel for one that is no square; ModelError where it is not the tower's."""
    side = settings.square(default)
    settings.require_agreement(settings.image, "size", side, settings.tower, "image_size")
    return side


def _merged(settings: Settings, side: int) -> int:
    """Rows on a side of a tile."""
    patch = settings.tower.integer("patch_size", 1, MAX_STEP, 16)
    return side // patch // settings.model.integer("downsample_factor", 1, 64, 2)
