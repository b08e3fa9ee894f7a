"""What there is of a video before frames are chosen, the frames that were, and what all of it may cost.

Called by what reads files and by what takes frames that are decoded already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from albireo.errors import InvalidParams, InvariantError, short
from albireo.images.decode import on_white

if TYPE_CHECKING:
    from PIL import Image

#: Frames a second of what does not say.
DEFAULT_RATE = 24.0
MAX_RATE = 1000.0
MAX_SECONDS = 4 * 3600
#: Of a frame; as of a picture.
MAX_PIXELS = 89_478_485
#: Of all frames that are kept, as they are kept.
MAX_KEPT_BYTES = 4 * 2**30
REMEDY = "make another file of it: ffmpeg -i FILE -c:v libx264 -pix_fmt yuv420p video.mp4"


@dataclass(frozen=True, slots=True)
class Footage:
    """Fields: num_frames: at least 1. rate: of them a second, on the average. width, height: of a frame, upright."""

    num_frames: int
    rate: float
    width: int
    height: int

    @property
    def seconds(self) -> float:
        return self.num_frames / self.rate


#: Gives ascending numbers of frames, each from 0 to num_frames - 1; one may be there twice.
Choose = Callable[[Footage], Sequence[int]]
#: Gives the width and height to which frames are brought as they are decoded.
Shrink = Callable[[Footage], tuple[int, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Frames:
    """Fields: images: RGB, upright, all of one size. numbers: of each, which frame it was: frame n is shown at
    n / footage.rate seconds."""

    images: tuple[Image.Image, ...]
    numbers: tuple[int, ...]
    footage: Footage


class Kept:
    """The frames that were chosen, as they come in.

    Raises: InvalidParams for footage that is too much; InvariantError where what chooses breaks its promise.
    """

    def __init__(self, footage: Footage, choose: Choose, shrink: Shrink | None, max_seconds: float) -> None:
        check_frame(footage.width, footage.height)
        check_seconds(footage, max_seconds)
        self.footage = footage
        self.numbers = tuple(int(each) for each in choose(footage))
        if not self.numbers or list(self.numbers) != sorted(self.numbers):
            raise InvariantError(f"frames {short(self.numbers)} were chosen; numbers that ascend were promised")
        if self.numbers[0] < 0 or self.numbers[-1] >= footage.num_frames:
            raise InvariantError(f"frames {short(self.numbers)} were chosen of {footage.num_frames}")
        self._size = (footage.width, footage.height) if shrink is None else shrink(footage)
        if min(self._size) < 1:
            raise InvariantError(f"frames are to be shrunk to {self._size}")
        num_bytes = 3 * self._size[0] * self._size[1] * len(self.numbers)
        if num_bytes > MAX_KEPT_BYTES:
            raise InvalidParams(
                f"{len(self.numbers)} frames of {self._size[0]} x {self._size[1]} pixels take {num_bytes:,} bytes; at "
                f"most {MAX_KEPT_BYTES:,} are kept: take fewer frames, or send a smaller video"
            )
        self._images: dict[int, Image.Image] = {}

    @property
    def missing(self) -> list[int]:
        """In order, each once."""
        return [each for each in dict.fromkeys(self.numbers) if each not in self._images]

    def add(self, number: int, image: Image.Image) -> None:
        """image: RGB, upright."""
        from PIL import Image

        if image.size != self._size:  # shrunk; or the size changes in the midst of a video
            image = image.resize(self._size, Image.Resampling.BICUBIC)
        self._images[number] = image

    def forget(self) -> None:
        """All that was added."""
        self._images.clear()

    def frames(self) -> Frames:
        return Frames(tuple(self._images[each] for each in self.numbers), self.numbers, self.footage)


def check_frame(width: int, height: int) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise InvalidParams(
            f"a frame of a video has {width} x {height} pixels: send one of 1 to {MAX_PIXELS} pixels a frame"
        )


def check_seconds(footage: Footage, most: float) -> None:
    if footage.seconds > most:
        raise InvalidParams(f"a video lasts {footage.seconds:,.1f} s; at most {most:,.0f} s are read: cut it")


def evenly(footage: Footage, fps: float, count: int) -> tuple[int, ...]:
    """Numbers of so many frames of a second, or of count where fps is 0, from the first on; of few frames all."""
    total = footage.num_frames
    wanted = int(total / footage.rate * fps) if fps else count
    num_chosen = min(max(wanted, 1), total)
    return tuple(number * total // num_chosen for number in range(num_chosen))


def usable_rate(num_frames: int, seconds: float) -> float:
    """Frames a second, or what stands for it where these numbers say nothing."""
    rate = num_frames / seconds if seconds > 0 else 0.0
    return rate if 0 < rate <= MAX_RATE else DEFAULT_RATE


def upright_rgb(image: Image.Image) -> Image.Image:
    """Decoded, turned as its EXIF says, on white where it is transparent; as pictures are."""
    from PIL import ImageOps

    check_frame(*image.size)
    return on_white(ImageOps.exif_transpose(image))
