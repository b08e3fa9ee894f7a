"""LlavaNext: LLaVA-NeXT (1.6) and Granite Vision. A picture is one tile, a mosaic of square blocks: as large as its
proportions allow on one of some grids, with black where it does not reach; and the whole of it in a last block.

Called by processor.py. What the tower leaves out of the black again, models/vision/mosaic.py says.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from albireo.errors import ModelError
from albireo.images.grids import MAX_TILES
from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_ROWS, MAX_SIDE, MAX_STEP, Settings
from albireo.json_file import Fields
from albireo.models.vision.mosaic import Mosaic

if TYPE_CHECKING:
    from PIL import Image

#: Height and width in pixels.
Size = tuple[int, int]

_CLASSES = ("LlavaNextImageProcessor",)
_GRIDS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


@dataclass(frozen=True, slots=True, eq=False)
class LlavaNext(HasPixels):
    """See ImageProcessor. Fields: block: pixels on its side. side: patches on it. sizes: of grids of blocks, in the
    order in which they are preferred where nothing else tells them apart."""

    pixels: Pixels
    block: int
    side: int
    sizes: tuple[Size, ...]
    image_token: str

    @property
    def placeholder(self) -> str:
        return self.image_token

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image, processor, tower = settings.image, settings.processor, settings.tower
        block = _block(settings)
        settings.require_agreement(image, "crop_size", block, tower, "image_size")
        patch = tower.integer("patch_size", 1, MAX_STEP, 14)
        own_patch = processor.integer("patch_size", 1, MAX_STEP, patch)
        settings.require_agreement(processor, "patch_size", own_patch, tower, "patch_size")
        added = processor.integer("num_additional_image_tokens", 0, MAX_ROWS, 0)
        taken = processor.raw("vision_feature_select_strategy") == "default"
        if added != taken:
            raise ModelError(
                f"{processor.where}: num_additional_image_tokens={added} are added to the patches of a block, and "
                f"vision_feature_select_strategy takes {int(taken)} away; the tower gives rows of patches alone"
            )
        sizes = sizes_of(settings, block, _GRIDS)
        found = cls(
            settings.pixels(_CLASSES, BICUBIC, CLIP_MEAN, CLIP_STD),
            block,
            block // patch,
            sizes,
            processor.text("image_token", "<image>"),
        )
        always = {"do_center_crop": (True,), "do_pad": (True,), "aspect_ratio_setting": ("anyres",)}
        settings.refuse_unread((), always)
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        given = image.height, image.width
        size = nearest_size(given, self.sizes)
        mosaic = self._mosaic(given, size)
        tile = np.zeros((*mosaic.size(self.block), 3), np.uint8)
        high, wide = _within(given, size)
        top, left = (size[0] - high) // 2, (size[1] - wide) // 2
        tile[top : top + high, left : left + wide] = array(self.pixels.resized(image, high, wide))
        whole = array(self.pixels.resized(image, self.block, self.block))
        tile[size[0] : size[0] + self.block, : self.block] = whole
        return PreparedImage((tile,), self.image_token * self.rows(*tile.shape[:2]))

    def rows(self, height: int, width: int) -> int:
        lines, columns = self.shrunk(Mosaic.of(height, width, self.block).grid(self.side))
        return self.side**2 + lines * (columns + 1)

    def shrunk(self, grid: Size) -> Size:
        """Lines and columns of rows, of those that patches have."""
        return grid

    def largest_tile(self) -> tuple[int, int]:
        # of as many blocks the highest has the most lines, behind each of which stands a row more
        high, wide = max(self.sizes, key=lambda size: (math.prod(size), size[0]))
        return high + self.block, wide

    def _mosaic(self, given: Size, size: Size) -> Mosaic:
        """That of a picture on a grid: of patches, as many are left out as are black, evenly at both ends."""
        (height, width), (rows, columns) = given, (each // self.block for each in size)
        lines, sides = rows * self.side, columns * self.side
        if width / height > sides / lines:
            return Mosaic(rows, columns, lines=(lines - int(round(height * (sides / width), 7))) // 2)
        return Mosaic(rows, columns, sides=(sides - int(round(width * (lines / height), 7))) // 2)


def nearest_size(given: Size, sizes: Iterable[Size]) -> Size:
    """The one on which most of a picture's pixels are seen; of equal ones that with the fewest others, or the first.

    Args: given: of the picture.
    """

    def seen(size: Size) -> tuple[int, int]:
        scale = min(side / own for side, own in zip(size[::-1], given[::-1], strict=True))
        shown = min(int(given[1] * scale) * int(given[0] * scale), math.prod(given))
        return shown, shown - math.prod(size)

    return max(sizes, key=seen)


def _within(given: Size, size: Size) -> Size:
    """Height and width of a picture as large as it is within a size, in its own proportions."""
    (height, width), (high, wide) = given, size
    by_height, by_width = high / height, wide / width
    if by_width < by_height:
        return min(math.ceil(height * by_width), high), wide
    return high, min(math.ceil(width * by_height), wide)


def _block(settings: Settings) -> int:
    """Pixels on the side of a block, of which size and crop_size say the same."""
    image = settings.image
    size, crop = (image.table(key) or {} for key in ("size", "crop_size"))
    sides = {
        Fields(table or {"height": 224}, f"{image.where}: {key}").integer(name, 1, MAX_SIDE)
        for key, table in (("size", size), ("crop_size", crop))
        for name in (table or {"height": 224})
    }
    names = set(size) | set(crop)
    if len(sides) != 1 or not names <= {"shortest_edge", "height", "width"}:
        image.unsupported("size", image.raw("size"), f"with crop_size={crop}: both must be one square")
    return sides.pop()


def sizes_of(settings: Settings, block: int, default: Sequence[Any]) -> tuple[Size, ...]:
    """Those of image_grid_pinpoints, which two files have. Args: block: pixels on its side. default: of absent keys.

    Raises: UnsupportedModel for one that blocks do not fill; ModelError where the files differ.
    """
    image, model = settings.image, settings.model
    sizes = _sizes(image, block, default)
    if _sizes(model, block, default) != sizes:
        raise ModelError(
            f"{image.where}: image_grid_pinpoints are not those of {model.where}; both must be of one checkpoint"
        )
    return sizes


def _sizes(fields: Fields, block: int, default: Sequence[Any]) -> tuple[Size, ...]:
    given: Any = fields.raw("image_grid_pinpoints")
    given = default if given is None else given
    if not isinstance(given, list) or not given:
        fields.fail("image_grid_pinpoints", given, "must be a list of heights and widths")
    for size in given:
        is_size = isinstance(size, list) and len(size) == 2 and all(type(each) is int and each > 0 for each in size)
        if not is_size or any(each % block for each in size) or math.prod(size) > MAX_TILES * block**2:
            what = f"each is a height and a width of at most {MAX_TILES} blocks of {block} x {block} pixels"
            fields.unsupported("image_grid_pinpoints", size, what)
    return tuple((height, width) for height, width in given)
