"""Qwen2VL: also Qwen2.5-VL, Qwen3-VL and Qwen3.5; what others do alike. A picture is one tile, of as many pixels as are
allowed.

Chat templates write <|vision_start|><|image_pad|><|vision_end|>; it is the middle that becomes rows. Called by
processor.py. How a tile is cut into patches, and repeated in time, is the tower's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from albireo.errors import InvalidParams
from albireo.images.pixels import HasPixels, Pixels, array, scaled_first
from albireo.images.prepared import PreparedImage
from albireo.images.settings import BICUBIC, CLIP_MEAN, CLIP_STD, MAX_STEP, OF_SOUNDS, Settings
from albireo.json_file import Fields

if TYPE_CHECKING:
    from PIL import Image

MAX_RATIO = 200
#: Far above any tile.
_MAX_PIXELS = 2**28


@dataclass(frozen=True, slots=True, eq=False)
class Qwen2VL(HasPixels):
    """See ImageProcessor.

    Fields:
        patch: side of what the tower begins with. merge: that many patches in either direction become a row.
        fewest, most: pixels of a tile, or of all its frames together.
        frames: that a tile is computed as, of which a picture has one.
    """

    pixels: Pixels
    patch: int
    merge: int
    fewest: int
    most: int
    frames: int

    image_token = placeholder = "<|image_pad|>"
    #: What a processor's class may be, and what its pixels are where nothing is said; whether they may be beside size.
    classes: ClassVar[tuple[str, ...]] = ("Qwen2VLImageProcessor", "Qwen2_5_VLImageProcessor")
    default_pixels: ClassVar[tuple[int, int]] = (56 * 56, 28 * 28 * 1280)
    may_say_pixels: ClassVar[bool] = True
    #: Pixels on a side of a patch where nothing is said; keys that say nothing as long as they have these values.
    default_patch: ClassVar[int] = 14
    default_merge: ClassVar[int] = 2
    #: Mean and deviation of colours, likewise.
    default_colours: ClassVar[tuple[Sequence[float], Sequence[float]]] = (CLIP_MEAN, CLIP_STD)
    neutral: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    #: What becomes of colours, as transformers computes it for the family.
    table = staticmethod(scaled_first)

    @classmethod
    def read(cls, settings: Settings) -> Self:
        """Raises: ModelError, UnsupportedModel."""
        image, tower = settings.image, settings.tower
        defaults = dict(zip(("shortest_edge", "longest_edge"), cls.default_pixels, strict=True))
        # both are numbers of pixels, whatever their names; older files have them beside size, where they come first
        size = Fields(cls.said_size(image) or defaults, f"{image.where}: size")
        fewest, most = (
            image.optional_integer(key, 1, _MAX_PIXELS) if cls.may_say_pixels else None
            for key in ("min_pixels", "max_pixels")
        )
        found = cls(
            settings.pixels(cls.classes, BICUBIC, *cls.default_colours, cls.table),
            patch=image.integer("patch_size", 1, MAX_STEP, cls.default_patch),
            merge=image.integer("merge_size", 1, MAX_STEP, cls.default_merge),
            fewest=fewest or size.integer("shortest_edge", 1, _MAX_PIXELS),
            most=most or size.integer("longest_edge", 1, _MAX_PIXELS),
            frames=cls.frames_of(settings),
        )
        settings.require_agreement(image, "patch_size", found.patch, tower, "patch_size")
        settings.require_agreement(image, "merge_size", found.merge, tower, "spatial_merge_size")
        size.refuse_unread(("shortest_edge", "longest_edge", "min_pixels", "max_pixels"), {})
        settings.refuse_unread(OF_SOUNDS if settings.model.has("audio_config") else (), cls.neutral)
        return found

    @classmethod
    def said_size(cls, image: Fields) -> dict[str, Any] | None:
        """What the file says of pixels; None: nothing."""
        return image.table("size")

    @classmethod
    def frames_of(cls, settings: Settings) -> int:
        """Raises: ModelError for another number than the tower's."""
        image, key = settings.image, "temporal_patch_size"
        found = image.integer(key, 1, MAX_STEP, 2)
        settings.require_agreement(image, key, found, settings.tower, key)
        return found

    def prepare(self, image: Image.Image) -> PreparedImage:
        step = self.patch * self.merge
        height, width = self.size_of(image.height, image.width)
        tile = array(self.pixels.resized(image, height, width))
        return PreparedImage((tile,), self.image_token * self.rows(height, width), (height // step, width // step))

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the tile of a picture. Raises: InvalidParams when its sides are too unequal."""
        return nearest_size(height, width, self.patch * self.merge, self.fewest, self.most)

    def rows(self, height: int, width: int) -> int:
        return (height // self.patch // self.merge) * (width // self.patch // self.merge)

    def largest_tile(self) -> tuple[int, int]:
        step = self.patch * self.merge
        return step, step * max(1, self.most // step**2)


class OfOneFrame(Qwen2VL):
    """Whose tower reads patches of one frame, whatever config.json says of videos."""

    __slots__ = ()

    @classmethod
    def frames_of(cls, settings: Settings) -> int:
        """Raises: UnsupportedModel for another number."""
        found = settings.image.integer("temporal_patch_size", 1, MAX_STEP, 1)
        if found != 1:
            settings.image.unsupported("temporal_patch_size", found, "the tower reads patches of one frame")
        return found


class DotsOcr(OfOneFrame):
    """dots.ocr, whose positions know no axes; templates write <|img|><|imgpad|><|endofimg|>."""

    __slots__ = ()
    image_token = placeholder = "<|imgpad|>"


class Exaone45(Qwen2VL):
    """EXAONE 4.5, whose positions know no axes."""

    __slots__ = ()
    classes = (*Qwen2VL.classes, "Exaone4_5_ImageProcessor")


class HyperClovaX(Qwen2VL):
    """HyperCLOVA X Vision, whose positions know no axes; templates write <|image_start|><|IMAGE_PAD|><|image_end|>."""

    __slots__ = ()
    image_token = placeholder = "<|IMAGE_PAD|>"


class OpenCua(Qwen2VL):
    """OpenCUA, whose positions know no axes; templates write <|media_placeholder|> between marks."""

    __slots__ = ()
    image_token = placeholder = "<|media_placeholder|>"


def nearest_size(
    height: int,
    width: int,
    step: int,
    fewest: int,
    most: int,
    frames: int = 1,
    given: tuple[int, int] | None = None,
) -> tuple[int, int]:
    """Height and width of a tile of so many pixels: multiples of step, in proportion as nearly as these allow.

    Args: frames: of which the pixels are counted together. given: height and width in errors, where others were asked.
    Raises: InvalidParams when the sides are too unequal.
    """
    if max(height, width) > MAX_RATIO * min(height, width):
        high, wide = given or (height, width)
        raise InvalidParams(
            f"a picture of {wide} x {high} pixels is too long in one direction: at most {MAX_RATIO} to 1 is read"
        )
    tall, wide = round(height / step) * step, round(width / step) * step
    if frames * tall * wide > most:
        scale = math.sqrt(frames * height * width / most)
        tall, wide = (max(step, math.floor(side / scale / step) * step) for side in (height, width))
    elif frames * tall * wide < fewest:
        scale = math.sqrt(fewest / (frames * height * width))
        tall, wide = (math.ceil(side * scale / step) * step for side in (height, width))
    return tall, wide
