"""Idefics3: also SmolVLM. A picture becomes square tiles, row by row, and last the whole of it in one.

It is resized until its longer side has a given length, then until both sides are multiples of a tile's. Called by
processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import HALF, LANCZOS, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

MARK, WHOLE = "<fake_token_around_image>", "<global-img>"
#: However long the longer side is said to be.
_MAX_LONGER = 4096
_CLASSES = ("Idefics3ImageProcessor", "SmolVLMImageProcessor")


@dataclass(frozen=True, slots=True, eq=False)
class Idefics3(HasSquares):
    """See ImageProcessor.

    Fields:
        longer: what the longer side becomes at first. side: of a tile. is_cut: whether there are others than the whole.
        patch: side of what the tower begins with. scale: that many patches in either direction become a row.
    """

    pixels: Pixels
    longer: int
    side: int
    is_cut: bool
    patch: int
    scale: int

    image_token = placeholder = "<image>"

    @classmethod
    def read(cls, settings: Settings) -> Idefics3:
        """Raises: ModelError, UnsupportedModel."""
        (longer,) = settings.size("longest_edge", default=4 * 364)
        (side,) = settings.size("longest_edge", default=364, key="max_image_size")
        found = cls(
            settings.pixels(_CLASSES, LANCZOS, HALF, HALF),
            longer=longer,
            side=side,
            is_cut=settings.image.flag("do_image_splitting", True),
            patch=settings.tower.integer("patch_size", 1, MAX_STEP, 32),
            scale=settings.model.integer("scale_factor", 1, MAX_STEP, 2),
        )
        settings.require_rows(settings.processor, "image_seq_len", 169, found.rows(side, side), side)
        settings.refuse_unread(("video_sampling",))
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        height, width = fit(image.height, image.width, self.longer, 2)
        if max(height, width) > _MAX_LONGER:
            height, width = fit(height, width, _MAX_LONGER, 1)
        image = self.pixels.resized(image, height, width)
        if not self.is_cut:
            return self._prepared(image, 1, 1)
        height, width = fit(height, width, _up(max(height, width), self.side), self.side)
        return self._prepared(self.pixels.resized(image, height, width), height // self.side, width // self.side)

    def _prepared(self, image: Image.Image, num_rows: int, num_columns: int) -> PreparedImage:
        side = self.side
        rows = self.image_token * self.rows(side, side)
        whole = array(self.pixels.resized(image, side, side))
        last = f"{MARK}{WHOLE}{rows}{MARK}"
        if num_rows * num_columns == 1:
            return PreparedImage((whole,), last)
        places = [(row, column) for row in range(num_rows) for column in range(num_columns)]
        colours = array(image)
        tiles = [colours[row * side : (row + 1) * side, column * side : (column + 1) * side] for row, column in places]
        lines = [
            "".join(f"{MARK}<row_{row + 1}_col_{column + 1}>{rows}" for column in range(num_columns))
            for row in range(num_rows)
        ]
        return PreparedImage((*tiles, whole), "\n".join([*lines, "", last]))

    def rows(self, height: int, width: int) -> int:
        return (height // self.patch) * (width // self.patch) // self.scale**2


def fit(height: int, width: int, longer: int, step: int) -> tuple[int, int]:
    """Height and width of which one is longer, and the other in proportion, up to a multiple of step."""
    ratio = width / height
    if width >= height:
        return max(_up(int(longer / ratio), step), 1), longer
    return longer, max(_up(int(longer * ratio), step), 1)


def _up(length: int, step: int) -> int:
    return -(-length // step) * step
