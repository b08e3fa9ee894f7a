"""GotOcr2: GOT-OCR 2.0 and PP-Chart2Table. Whatever its proportions, a picture is resized to the one size that the
tower reads.

Prompts write <img><imgpad></img> for a picture; it is the middle that becomes rows. Chat templates of PP-Chart2Table
write that for each row. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

from albireo.images.pixels import HasSquares, Pixels, array
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, Settings

if TYPE_CHECKING:
    from PIL import Image

#: Patches on a side of what becomes a row.
_MERGED = 4


@dataclass(frozen=True, slots=True, eq=False)
class GotOcr2(HasSquares):
    """See ImageProcessor. Fields: side: of the tile. num_rows: of it."""

    pixels: Pixels
    side: int
    num_rows: int

    image_token = placeholder = "<imgpad>"
    classes: ClassVar[tuple[str, ...]] = ("GotOcr2ImageProcessor",)
    default_side: ClassVar[int] = 384
    #: Of crops, which the processor makes where a caller asks for them.
    ignorable: ClassVar[tuple[str, ...]] = ("crop_to_patches", "min_patches", "max_patches")

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image, tower = settings.image, settings.tower
        side = settings.square(cls.default_side)
        settings.require_agreement(image, "size", side, tower, "image_size")
        patch = tower.integer("patch_size", 1, MAX_STEP, 16)
        pixels = settings.pixels(cls.classes, BICUBIC, CLIP_MEAN, CLIP_STD)
        settings.refuse_unread(cls.ignorable)
        return cls(pixels, side, (side // patch // _MERGED) ** 2)

    def prepare(self, image: Image.Image) -> PreparedImage:
        """See ImageProcessor; no sides are too unequal."""
        tile = array(self.pixels.resized(image, self.side, self.side))
        return PreparedImage((tile,), self.image_token * self.num_rows)

    def rows(self, height: int, width: int) -> int:
        return self.num_rows


@dataclass(frozen=True, slots=True, eq=False)
class PpChart2Table(GotOcr2):
    """See ImageProcessor and IsWrittenWhole."""

    classes: ClassVar[tuple[str, ...]] = ("PPChart2TableImageProcessor",)
    default_side: ClassVar[int] = 1024
    #: How some other program reads pictures.
    ignorable: ClassVar[tuple[str, ...]] = ("image_mode", "channel_first", "normalize_order", "do_to_chw", "keep_keys")

    @property
    def written_rows(self) -> int:
        return self.num_rows
