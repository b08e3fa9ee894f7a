"""DeepseekOcr and DeepseekOcr2: the whole of a picture in one square, of which it fills the middle; and before it,
where it is larger than a part, its parts: square blocks on a grid of nearly its proportions, which are one tile.

Prompts write <image> for a picture, which all of its rows are. Called by processor.py. Source: DeepSeek-AI 2025,
DeepSeek-OCR, whose code resizes with Pillow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from albireo.images.grids import Grid, grids, nearest_grid
from albireo.images.pixels import HasPixels, Pixels, array, scaled_first
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, HALF, Settings
from albireo.json_file import Fields, keys

if TYPE_CHECKING:
    from PIL import Image

#: Parts that a picture may have, as its authors' code has it.
_FEWEST, _MOST = 2, 6
#: Patches on a side of what becomes a row.
_MERGED = 4
#: How texts are written, and training.
_OF_TEXTS = keys("add_special_token ignore_id mask_prompt pad_token sft_format processor_class")


@dataclass(frozen=True, slots=True, eq=False)
class DeepseekOcr(HasPixels):
    """See ImageProcessor. Fields: side: of the square that the whole is in. part: of a part. step: pixels on a side of
    what becomes a row. empty: colour of what a picture does not fill. grids: that it may be cut into."""

    pixels: Pixels
    side: int
    part: int
    step: int
    empty: tuple[int, int, int]
    grids: tuple[Grid, ...]

    image_token = placeholder = "<image>"
    #: Of a part's side, of that of the whole; rows behind each line.
    share: ClassVar[tuple[int, int]] = (5, 8)
    behind: ClassVar[int] = 1

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image, of_sam = settings.image, settings.tower.table("sam_config") or {}
        sam = Fields(of_sam, f"{settings.tower.where}: sam_config")
        side, patch = sam.integer("image_size", 8, 2**14, 1024), sam.integer("patch_size", 1, 2**10, 16)
        image.only("patch_size", patch)
        said = image.raw("candidate_resolutions")
        if said not in (None, [[side, side]]):
            image.unsupported("candidate_resolutions", said, f"the one of config.json, {side} x {side}")
        # a colour is made of it
        mean = image.numbers("image_mean", 0.0, 1.0) if image.raw("image_mean") is not None else HALF
        found = cls(
            settings.pixels(("DeepseekOCRImageProcessor",), BICUBIC, HALF, HALF, scaled_first),
            side,
            side * cls.share[0] // cls.share[1],
            patch * _MERGED,
            (int(mean[0] * 255), int(mean[1] * 255), int(mean[2] * 255)),
            grids(_FEWEST, _MOST),
        )
        neutral = {"downsample_ratio": (_MERGED,), "normalize": (True,), "image_token": (found.image_token,)}
        settings.refuse_unread(_OF_TEXTS, neutral)
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        tiles = []
        if max(image.size) > self.part:
            columns, rows = nearest_grid(self.grids, image.height, image.width, self.part)
            tiles.append(array(self.pixels.resized(image, rows * self.part, columns * self.part)))
        tiles.append(self._whole(image))
        count = sum(self.rows(*tile.shape[:2]) for tile in tiles)
        return PreparedImage(tuple(tiles), self.image_token * count)

    def _whole(self, image: Image.Image) -> NDArray[np.uint8]:
        """A picture in the middle of a square, as ImageOps.pad() of Pillow 13 has it; of one whose shorter side
        is less than half a pixel there, nothing is seen, where that of Pillow 10 to 12.0 raises ValueError."""
        tile = np.empty((self.side, self.side, 3), np.uint8)
        tile[:] = self.empty
        height = min(self.side, round(image.height / image.width * self.side))
        width = min(self.side, round(image.width / image.height * self.side))
        if height and width:
            top, left = round((self.side - height) / 2), round((self.side - width) / 2)
            tile[top : top + height, left : left + width] = array(self.pixels.resized(image, height, width))
        return tile

    def rows(self, height: int, width: int) -> int:
        """Those behind lines, too, and one behind the whole."""
        lines, columns = height // self.step, width // self.step
        return lines * (columns + self.behind) + ((height, width) == (self.side, self.side))

    def largest_tile(self) -> tuple[int, int]:
        """Of as many parts as there may be, in a column, which has most lines."""
        return _MOST * self.part, self.part


class DeepseekOcr2(DeepseekOcr):
    """See ImageProcessor."""

    __slots__ = ()
    share = (3, 4)
    behind = 0
