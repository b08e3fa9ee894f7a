"""InternVL and Qianfan-OCR: square tiles in a grid of nearly a picture's proportions, and last the whole of it in one.

Chat templates write <IMG_CONTEXT> for a picture, which all of its rows are. Called by processor.py. Source of the grid:
Chen et al. 2024, InternVL 1.5, section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from albireo.images.grids import MAX_TILES, Grid, cut_into, grids, nearest_grid
from albireo.images.pixels import HasSquares, Pixels, array, scaled_first
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_SIDE, Settings
from albireo.json_file import Fields

if TYPE_CHECKING:
    from PIL import Image

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
START, END = "<img>", "</img>"
#: What chat templates of Qianfan-OCR write for a picture.
QIANFAN_MARK = "<image>"
_CLASSES = ("GotOcr2ImageProcessor",)


@dataclass(frozen=True, slots=True, eq=False)
class InternVL(HasSquares):
    """See ImageProcessor. Fields: side: of a tile. num_rows: of it. grids: that a picture may be cut into; none: it is
    one tile."""

    pixels: Pixels
    side: int
    num_rows: int
    grids: tuple[Grid, ...]

    image_token = placeholder = "<IMG_CONTEXT>"

    @classmethod
    def read(cls, settings: Settings) -> InternVL:
        """Raises: ModelError, UnsupportedModel."""
        image, processor = settings.image, settings.processor
        height, width = settings.size("height", "width", default=384)
        of_tower = one_of(settings.tower, "image_size", 448)
        if (height, width) != (of_tower, of_tower):
            image.fail("size", image.raw("size"), f"must be the {of_tower} x {of_tower} pixels of config.json's tower")
        fewest, most = image.integer("min_patches", 1, MAX_TILES, 1), image.integer("max_patches", 1, MAX_TILES, 12)
        if fewest > most:
            image.fail("min_patches", fewest, f"must be at most max_patches={most}")
        ratio = settings.model.number("downsample_ratio", 1 / 16, 1.0, 0.5)
        num_rows = int(width // one_of(settings.tower, "patch_size", 14) * ratio) ** 2
        settings.require_rows(processor, "image_seq_length", 256, num_rows, width)
        found = cls(
            settings.pixels(_CLASSES, BICUBIC, CLIP_MEAN, CLIP_STD),
            width,
            num_rows,
            grids(fewest, most) if most > 1 else (),
        )
        # pictures are cut for this model whatever its file says
        settings.refuse_unread(
            ("crop_to_patches",), {"do_center_crop": (False,), "image_placeholder_token": (QIANFAN_MARK,)}
        )
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        columns, rows = self.grid(image.height, image.width)
        tiles = cut_into(array(self.pixels.resized(image, rows * self.side, columns * self.side)), self.side)
        if len(tiles) > 1:
            tiles.append(array(self.pixels.resized(image, self.side, self.side)))
        return PreparedImage(tuple(tiles), self.text(len(tiles)))

    def grid(self, height: int, width: int) -> Grid:
        """Columns and rows of tiles that a picture is cut into."""
        return nearest_grid(self.grids, height, width, self.side)

    def text(self, num_tiles: int) -> str:
        """What stands for a picture of so many."""
        return f"{START}{self.image_token * self.num_rows * num_tiles}{END}"

    def rows(self, height: int, width: int) -> int:
        return self.num_rows


@dataclass(frozen=True, slots=True, eq=False)
class InternVLChat(InternVL):
    """As its authors publish it: config.json says how pictures are cut, and their code which colours there are."""

    @classmethod
    def read(cls, settings: Settings) -> InternVLChat:
        """Raises: ModelError, UnsupportedModel."""
        model = settings.model
        side = one_of(settings.tower, "image_size", 448)
        for key, only in (("force_image_size", side), ("dynamic_image_size", True), ("use_thumbnail", True)):
            model.only(key, only)
        if model.flag("pad2square", False) or model.text("ps_version", "v2") != "v2":
            told = f"with pad2square={model.raw('pad2square')}: supported are v2, and pictures that are not padded"
            model.unsupported("ps_version", model.raw("ps_version"), told)
        fewest = model.integer("min_dynamic_patch", 1, MAX_TILES, 1)
        most = model.integer("max_dynamic_patch", fewest, MAX_TILES, 12)
        ratio = model.number("downsample_ratio", 1 / 16, 1.0, 0.5)
        num_rows = int(side // one_of(settings.tower, "patch_size", 14) * ratio) ** 2
        colours = Pixels(BICUBIC, scaled_first(1 / 255, IMAGENET_MEAN, IMAGENET_STD))
        return cls(colours, side, num_rows, grids(fewest, most) if most > 1 else ())


def one_of(tower: Fields, key: str, default: int) -> int:
    """A number, or the first of two, which the tower has to be equal."""
    given = tower.raw(key)
    first = given[0] if isinstance(given, list) and given else given
    return Fields({key: first}, tower.where).integer(key, 1, MAX_SIDE, default)
