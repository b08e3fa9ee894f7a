"""MiniCpmV: pictures of MiniCPM-V 2.5 to 4.5 and of MiniCPM-o, which are cut as those of MiniCPM-V 4.6 are; but a tile
is of whole patches, and has as many rows whatever its size.

Called by processor.py. Source: Yao et al. 2024, MiniCPM-V, and its authors' code, which resizes with Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from albireo.images.grids import MAX_TILES
from albireo.images.minicpmv4_6 import END, PART, PART_END, START, MiniCpmV46
from albireo.images.settings import BICUBIC, HALF, MAX_ROWS, MAX_SIDE, MAX_STEP, OF_SOUNDS, Settings
from albireo.json_file import keys
from albireo.models.settings.minicpmv import FIRST

#: A picture, as its authors write it in prompts.
SPELLED = "(<image>./</image>)"
#: What files call some keys.
_NAMES = {"image_mean": "norm_mean", "image_std": "norm_std"}
#: Marks, by the keys that files have them under, and that these are saved under again; colours likewise.
_MARKS = {"im_start": "<image>", "im_end": "</image>", "slice_start": "<slice>", "slice_end": "</slice>"}
_MARKS |= {"unk": "<unk>", "im_id_start": "<image_id>", "im_id_end": "</image_id>"}
_NEUTRAL = {
    **{key: (mark,) for key, mark in _MARKS.items()},
    **{key if "_id_" in key else f"{key}_token": (mark,) for key, mark in _MARKS.items()},
    **{"mean": (list(HALF),), "std": (list(HALF),)},
}


@dataclass(frozen=True, slots=True, eq=False)
class MiniCpmV(MiniCpmV46):
    """See ImageProcessor. Fields: count: rows of a tile. is_grid_marked: marks of parts are around all of them, and
    each is marked as a picture."""

    count: int = 64
    is_grid_marked: bool = False

    image_token = placeholder = "<unk>"
    classes = ("MiniCPMVImageProcessor",)

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        settings = replace(settings, image=settings.image.named(_NAMES))
        image, model = settings.image, settings.model
        patch, is_cut = image.integer("patch_size", 1, MAX_STEP, 14), image.flag("slice_mode", True)
        if not is_cut:
            image.unsupported("slice_mode", False, "pictures are resized to what the tower reads")
        side = image.integer("scale_resolution", 1, MAX_SIDE, 448)
        count = image.integer("image_feature_size", 1, MAX_ROWS, 64)
        found = cls(
            settings.pixels(cls.classes, BICUBIC, HALF, HALF),
            step=patch,
            side=side,
            most=image.integer("max_slice_nums", 1, MAX_TILES, 9),
            is_numbered=image.flag("use_image_id", False),
            count=count,
            is_grid_marked=model.text("version") == FIRST,
        )
        settings.require_agreement(image, "patch_size", patch, settings.tower, "patch_size")
        settings.require_agreement(image, "scale_resolution", side, model, "image_size")
        settings.require_agreement(image, "image_feature_size", count, model, "query_num")
        settings.refuse_unread(OF_SOUNDS | keys("version"), _NEUTRAL)
        return found

    def grid_text(self, tile: NDArray[np.uint8], rows: int, columns: int) -> str:
        if not self.is_grid_marked:
            return MiniCpmV46.grid_text(self, tile, rows, columns)
        line = f"{START}{self._rows_of(tile)}{END}" * columns
        return PART + "\n".join([line] * rows) + PART_END

    def marked(self, text: str) -> str:
        return text.replace(SPELLED, self.placeholder)

    def rows(self, height: int, width: int) -> int:
        return self.count
