"""Idefics2: a picture is one tile of its own proportions, or five: each of its quarters, and the whole of it.

Chat templates write <image>. Called by processor.py. Of marks side by side one stands, and words behind one begin with
a blank.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from albireo.errors import ModelError
from albireo.images.pixels import HasPixels, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BILINEAR, HALF, MAX_ROWS, MAX_SIDE, MAX_STEP, Settings
from albireo.json_file import Fields

if TYPE_CHECKING:
    from PIL import Image

_MARK = "<fake_token_around_image>"


@dataclass(frozen=True, slots=True, eq=False)
class Idefics2(HasPixels):
    """See ImageProcessor. Fields: longest: either side of a tile at most; shortest: at least. is_cut: whether quarters
    come first. num_rows: of any tile."""

    pixels: Pixels
    longest: int
    shortest: int
    is_cut: bool
    num_rows: int

    image_token = placeholder = "<image>"
    shared_mark = _MARK

    @classmethod
    def read(cls, settings: Settings) -> Idefics2:
        """Raises: ModelError, UnsupportedModel."""
        shortest, longest = settings.size("shortest_edge", "longest_edge", default=0) if _says(settings) else (378, 980)
        most = settings.tower.integer("image_size", 1, MAX_SIDE, 224)
        patch = settings.tower.integer("patch_size", 1, MAX_STEP, 32)
        if not patch <= shortest <= longest <= most:
            what = f"sides of up to {most} pixels, which the tower has positions for, and of a patch of {patch} or more"
            settings.image.unsupported("size", settings.image.raw("size"), what)
        of_model = Fields(settings.model.table("perceiver_config") or {}, f"{settings.model.where}: perceiver_config")
        count = settings.processor.integer("image_seq_len", 1, MAX_ROWS, 64)
        given = of_model.integer("resampler_n_latents", 1, MAX_ROWS, 64)
        if count != given:
            raise ModelError(
                f"{settings.processor.where}: image_seq_len is {count}, but {of_model.where} has resampler_n_latents="
                f"{given}; both must be of one checkpoint"
            )
        pixels = settings.pixels(("Idefics2ImageProcessor",), BILINEAR, HALF, HALF)
        found = cls(pixels, longest, shortest, settings.image.flag("do_image_splitting", False), count)
        settings.refuse_unread()
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        parts = [image]
        if self.is_cut:
            width, height = image.width // 2, image.height // 2
            lefts, tops = ((0, width, image.width), (0, height, image.height))
            corners = [(lefts[x], tops[y], lefts[x + 1], tops[y + 1]) for y in (0, 1) for x in (0, 1)]
            if min(width, height) < 1:
                # of a line nothing is cut
                corners = []
            parts = [*(image.crop(corner) for corner in corners), image]
        tiles = tuple(array(self.pixels.resized(part, *self._size(part.height, part.width))) for part in parts)
        return PreparedImage(tiles, _MARK + f"{self.image_token * self.num_rows}{_MARK}" * len(tiles))

    def _size(self, height: int, width: int) -> tuple[int, int]:
        ratio = width / height
        if width >= height and width > self.longest:
            width = self.longest
            height = int(width / ratio)
        elif height > width and height > self.longest:
            height = self.longest
            width = int(height * ratio)
        return max(height, self.shortest), max(width, self.shortest)

    def rows(self, height: int, width: int) -> int:
        return self.num_rows

    def largest_tile(self) -> tuple[int, int]:
        return self.longest, self.longest


def _says(settings: Settings) -> bool:
    return settings.image.raw("size") is not None
