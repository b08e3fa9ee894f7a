"""The bytes of a video, or frames that a caller has already -> chosen frames of it, upright and in RGB.

Called by the front doors. Bytes are hostile until decoded: their number, their format, how long it lasts, and how much
there is to decode are checked first. Animations are decoded by Pillow (animations.py), all else by FFmpeg (films.py).
Does not know where bytes come from, nor which frames a model wants: whoever calls chooses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from albireo.errors import EngineError, InvalidParams, short
from albireo.media.medium import VIDEO
from albireo.videos.animations import animation, kind_of
from albireo.videos.films import container_of, film
from albireo.videos.footage import (
    DEFAULT_RATE,
    MAX_RATE,
    MAX_SECONDS,
    Choose,
    Footage,
    Frames,
    Kept,
    Shrink,
    check_seconds,
    upright_rgb,
)

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["DEFAULT_RATE", "MAX_SECONDS", "Choose", "Footage", "Frames", "Shrink", "as_video", "decoded"]

MAX_VIDEO_BYTES = VIDEO.max_bytes
FORMATS = ("MP4", "MOV", "WebM", "Matroska", "AVI", "MPEG-TS", "GIF", "WebP", "APNG")
_ALLOWED = f"a whole video in one of {', '.join(FORMATS)} is wanted"
#: First bytes of what is not read, and what it is.
_FOREIGN = (
    (0, b"#EXTM3U", "a playlist"),
    (0, b"FLV", "FLV"),
    (0, b"\x30\x26\xb2\x75", "WMV"),
    (0, b"OggS", "Ogg"),
    (0, b"\0\0\1\xba", "MPEG-PS"),
    (0, b"\xff\xd8\xff", "a JPEG picture"),
    (4, b"ftyp", "a picture in HEIF"),
)
#: What vLLM says of frames that are decoded already.
_KNOWN = ("fps", "duration", "total_num_frames", "frames_indices", "video_backend", "do_sample_frames")


def decoded(data: bytes, choose: Choose, max_seconds: float = MAX_SECONDS, shrink: Shrink | None = None) -> Frames:
    """The frames of a file that choose names, each brought to the size that shrink gives as soon as it is decoded.

    A file that ends early ends with the last frame that is there whole, as a recording that was cut off does; but an
    MP4 whose index names bytes that are not there was not sent whole, and is refused. A frame that its decoder leaves
    out is the one before it, at most a second away: so a player shows it, and one lost frame costs no answer.

    Raises: InvalidParams for what is no video, damaged, too long, too much to decode, or where Pillow or PyAV is
        missing for it.
    """
    if len(data) > MAX_VIDEO_BYTES:
        raise InvalidParams(f"a video has {len(data):,} bytes; at most {MAX_VIDEO_BYTES:,} are read: cut it")
    _require_pillow()
    if (kind := kind_of(data)) is not None:
        return animation(data, kind, choose, shrink, max_seconds)
    if (container := container_of(data)) is not None:
        return film(data, container, choose, shrink, max_seconds)
    for start, mark, name in _FOREIGN:
        if data[start : start + len(mark)] == mark:
            raise InvalidParams(f"{name} is not read as a video; {_ALLOWED}")
    if not data:
        raise InvalidParams(f"a video has no bytes; {_ALLOWED}")
    raise InvalidParams(f"{len(data):,} bytes that begin with {short(data[:8])} are no video; {_ALLOWED}")


def as_video(value: Any, choose: Choose, max_seconds: float = MAX_SECONDS, shrink: Shrink | None = None) -> Frames:
    """The frames that choose names of what a caller gives: the bytes of a file; uint8 [frames, height, width, 3], or a
    list of pictures (of PIL, or arrays [height, width, 3]) of one size; or (one of these, {"fps": ...}) as vLLM has it.
    With "do_sample_frames": False all frames are taken, and "frames_indices" says which of the video they were. Frames
    stay.

    Raises: InvalidParams, as decoded(); also for anything else.
    """
    if isinstance(value, Frames):
        return value
    _require_pillow()
    if isinstance(value, (tuple, list)) and len(value) == 2 and isinstance(value[1], Mapping):
        value, said = value[0], _Said(value[1])
    else:
        said = _Said({})
    if not said.is_sampled:
        choose = lambda footage: range(footage.num_frames)  # noqa: E731
    if isinstance(value, (bytes, bytearray, memoryview)):
        if said.numbers is not None:
            raise InvalidParams("frames_indices says which frames an array has; of the bytes of a file it says nothing")
        if said.rate is None:
            return decoded(bytes(value), choose, max_seconds, shrink)
        rate = said.rate

        def at_rate(footage: Footage) -> Sequence[int]:
            footage = replace(footage, rate=rate)
            check_seconds(footage, max_seconds)
            return choose(footage)

        to_size = None if shrink is None else lambda footage: shrink(replace(footage, rate=rate))
        shown = decoded(bytes(value), at_rate, math.inf, to_size)
        return replace(shown, footage=replace(shown.footage, rate=rate))
    return _taken(value, said, choose, max_seconds, shrink)


class _Said:
    """What comes with a video. Fields: rate: None: nothing. is_sampled: frames are still to be chosen. numbers: of the
    frames that are there. total: of the frames there were."""

    def __init__(self, given: Mapping[Any, Any]) -> None:
        for key in given:
            if key not in _KNOWN:
                raise InvalidParams(f"what is said of a video has {short(key)}; known: {', '.join(_KNOWN)}")
        backend = given.get("video_backend")
        if backend is not None and not isinstance(backend, str):
            raise InvalidParams(f"a video has video_backend={short(backend)}; it must be a text")
        self.is_sampled = True
        if (is_sampled := given.get("do_sample_frames")) is not None:
            if not isinstance(is_sampled, (bool, np.bool_)):
                raise InvalidParams(f"a video has do_sample_frames={short(is_sampled)}; it must be true or false")
            self.is_sampled = bool(is_sampled)
        self.total = _whole(given.get("total_num_frames"), "total_num_frames", 1)
        seconds = _positive(given.get("duration"), "duration", math.inf)
        self.rate = _positive(given.get("fps"), "fps", MAX_RATE)
        if self.rate is None and seconds is not None and self.total is not None:
            self.rate = _positive(self.total / seconds, "total_num_frames / duration", MAX_RATE)
        self.numbers: tuple[int, ...] | None = None
        if (numbers := given.get("frames_indices")) is not None:
            if not isinstance(numbers, (list, tuple, range, np.ndarray)):
                raise InvalidParams(f"a video has frames_indices={short(numbers)}; a list of whole numbers is wanted")
            self.numbers = tuple(_whole(each, "a number in frames_indices", 0) or 0 for each in numbers)
            if list(self.numbers) != sorted(self.numbers):
                raise InvalidParams(f"a video has frames_indices={short(numbers)}; they must ascend")


def _whole(value: Any, name: str, least: int) -> int | None:
    if value is None:
        return None
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or not least <= value < 2**53:
        raise InvalidParams(f"a video has {name}={short(value)}; it must be a whole number of at least {least}")
    return int(value)


def _positive(value: Any, name: str, most: float) -> float | None:
    if value is None:
        return None
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= most or not math.isfinite(value):
        limit = f" of at most {most:g}" if math.isfinite(most) else ""
        raise InvalidParams(f"a video has {name}={short(value)}; it must be a positive number{limit}")
    return float(value)


def _taken(value: Any, said: _Said, choose: Choose, max_seconds: float, shrink: Shrink | None) -> Frames:
    """Of frames that are decoded already."""
    count, width, height = _size_of(value)
    kept = Kept(Footage(count, said.rate or DEFAULT_RATE, width, height), choose, shrink, max_seconds)
    for number in kept.missing:
        image = _picture(value[number])
        if image.size != (width, height):
            raise InvalidParams(
                f"frame {number} of a video has {image.size[0]} x {image.size[1]} pixels, the first one {width} x "
                f"{height}; all must have one size"
            )
        kept.add(number, image)
    return _numbered(kept.frames(), said)


def _numbered(frames: Frames, said: _Said) -> Frames:
    """With the numbers that were said."""
    count = frames.footage.num_frames
    if said.numbers is None:
        return frames
    if said.is_sampled:
        if said.numbers == tuple(range(count)):
            return frames
        raise InvalidParams('frames_indices says that frames are chosen already; add "do_sample_frames": false')
    if len(said.numbers) != count:
        raise InvalidParams(f"a video has {count} frames, and frames_indices has {len(said.numbers)} numbers")
    total = max(said.total or 0, said.numbers[-1] + 1)
    return replace(frames, numbers=said.numbers, footage=replace(frames.footage, num_frames=total))


def _size_of(value: Any) -> tuple[int, int, int]:
    """The number of frames, and a frame's width and height."""
    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 4 or value.shape[3] != 3 or not value.size:
            raise InvalidParams(
                f"an array {value.dtype} {list(value.shape)} is no video; uint8 [frames, height, width, 3] is wanted"
            )
        return value.shape[0], value.shape[2], value.shape[1]
    if not isinstance(value, (list, tuple)):
        raise InvalidParams(
            f"{short(value)} is no video; the bytes of a file, an array of numpy or a list of pictures is wanted"
        )
    if not value:
        raise InvalidParams("a video has no frames; send one that lasts")
    return len(value), *_picture(value[0]).size


def _picture(value: Any) -> Image.Image:
    from PIL import Image

    if isinstance(value, np.ndarray):
        if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3 or not value.size:
            raise InvalidParams(
                f"an array {value.dtype} {list(value.shape)} is no frame of a video; uint8 [height, width, 3] is wanted"
            )
        return Image.fromarray(np.ascontiguousarray(value))
    if not isinstance(value, Image.Image):
        raise InvalidParams(f"{short(value)} is no frame of a video; a PIL image or an array of numpy is wanted")
    try:
        return upright_rgb(value)
    except EngineError:
        raise
    except Exception as error:  # it may be read only now
        raise InvalidParams(f"a frame of a video cannot be decoded ({short(str(error))})") from None


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise InvalidParams("videos need Pillow, which is not installed: pip install 'albireo[video]'") from None
