"""Phi4Multimodal: a picture keeps its proportions on a sheet of square blocks, what it does not fill is white; one more
block, the whole of it, is made where the tower begins.

Chat templates write the token that becomes rows, which tokenizer_config.json names. Called by processor.py. Pictures
are resized by Pillow.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from albireo.errors import InvalidParams
from albireo.images.grids import MAX_TILES, Grid, grids, nearest_grid
from albireo.images.pixels import HasPixels, Pixels, array, scaled_at_once
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, BILINEAR, HALF, MAX_STEP, OF_SOUNDS, Settings
from albireo.json_file import Fields, keys, read_json
from albireo.models.vision.sheet import Sheet

if TYPE_CHECKING:
    from PIL import Image

_CLASSES, _TOKENIZER = ("Phi4MultimodalImageProcessor",), "tokenizer_config.json"
_OF_SOUNDS = OF_SOUNDS | keys(
    "audio_compression_rate audio_downsample_rate audio_feat_stride win_length preemphasis mel_min_frequency",
    "mel_max_frequency",
)
#: Patches on a side of a block, as which rows are counted; pixels that a side has at least.
_SIDE, _LEAST = 32, 10


@dataclass(frozen=True, slots=True, eq=False)
class Phi4Multimodal(HasPixels):
    """See ImageProcessor. Fields: block: pixels on its side. patch: on that of a patch. grids: of blocks, that a
    picture of more than most lies on."""

    pixels: Pixels
    block: int
    patch: int
    most: int
    grids: tuple[Grid, ...]
    image_token: str

    @classmethod
    def read(cls, settings: Settings) -> Phi4Multimodal:
        """Raises: ModelError, UnsupportedModel."""
        image = settings.image
        block, width = settings.size("height", "width", default=448)
        patch, most = image.integer("patch_size", 1, MAX_STEP, 14), image.integer("dynamic_hd", 1, MAX_TILES, 36)
        if block != width or block != _SIDE * patch:
            image.unsupported("size", image.raw("size"), f"blocks are squares of {_SIDE} patches of {patch} pixels")
        settings.require_agreement(image, "size", block, settings.tower, "crop_size")
        settings.require_agreement(image, "patch_size", patch, settings.tower, "patch_size")
        pixels = settings.pixels(_CLASSES, BICUBIC, HALF, HALF, scaled_at_once)
        if pixels.filter != BICUBIC:
            image.unsupported("resample", pixels.filter, f"supported: {BICUBIC}, of the whole picture in one block")
        settings.refuse_unread(_OF_SOUNDS)
        return cls(pixels, block, patch, most, grids(1, most), _token(Path(image.where).parent))

    @property
    def placeholder(self) -> str:
        return self.image_token

    def prepare(self, image: Image.Image) -> PreparedImage:
        columns, rows = self.grid(image.height, image.width)
        wide, high = columns * self.block, rows * self.block
        of_width, of_height = wide / image.width, high / image.height
        if of_width < of_height:
            width, height = wide, int(image.height * of_width)
        else:
            width, height = int(image.width * of_height), high
        if min(width, height) < _LEAST:
            raise InvalidParams(
                f"the picture of {image.width} x {image.height} pixels would be {width} x {height} of them; neither "
                f"may be below {_LEAST}: cut it"
            )
        sheet = Sheet(rows, columns, (high - height) // self.patch, (wide - width) // self.patch, _SIDE)
        canvas = np.full((*sheet.size(self.block), 3), 255, np.uint8)
        canvas[:height, :width] = array(image.resize((width, height), BILINEAR))
        return PreparedImage((canvas,), self.image_token * self.rows(*canvas.shape[:2]))

    def grid(self, height: int, width: int) -> Grid:
        """Columns and rows of blocks that a picture lies on: as many as it needs, or where these are too many, that
        whose proportions are nearest to its."""
        columns, rows = math.ceil(width / self.block), math.ceil(height / self.block)
        return (columns, rows) if columns * rows <= self.most else nearest_grid(self.grids, height, width, self.block)

    def rows(self, height: int, width: int) -> int:
        high, wide = Sheet.of(height, width, self.block, _SIDE).kept
        return high * (wide + 1) + 1 + _SIDE // 2 * (_SIDE // 2 + 1)

    def largest_tile(self) -> tuple[int, int]:
        """One block on top of another: behind each line there is one row more."""
        return self.most * self.block, self.block


def _token(directory: Path) -> str:
    """What the tokenizer calls the token of pictures."""
    path = directory / _TOKENIZER
    data = read_json(path) if path.is_file() else {}
    said = data.get("image_token")
    if said is None:
        said = (Fields(data, str(path)).table("extra_special_tokens") or {}).get("image_token")
    if isinstance(said, dict):
        said = said.get("content")
    return said if isinstance(said, str) else "<|image|>"
