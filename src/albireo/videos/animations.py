"""GIF, animated WebP and APNG -> chosen frames, composed by Pillow.

Called by decode.py. How many frames there are, and how long each is shown, is read here from the blocks of the file, so
that nothing is decoded before frames are chosen.
"""

from __future__ import annotations

import io
import struct

from albireo.errors import EngineError, InvalidParams, short
from albireo.videos.footage import (
    DEFAULT_RATE,
    REMEDY,
    Choose,
    Footage,
    Frames,
    Kept,
    Shrink,
    check_frame,
    upright_rgb,
    usable_rate,
)

MAX_ANIMATION_BYTES = 64 * 2**20
#: Every frame up to the last one chosen is composed, and Pillow takes its time.
MAX_WALKED_PIXELS = 2**34
#: Milliseconds. What is shown for less is shown for longer, as browsers do.
_SHORTEST, _INSTEAD = 10, 100


def kind_of(data: bytes) -> str | None:
    """GIF, WEBP or PNG, by its first bytes."""
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return "PNG" if data[:8] == b"\x89PNG\r\n\x1a\n" else None


def animation(data: bytes, kind: str, choose: Choose, shrink: Shrink | None, max_seconds: float) -> Frames:
    """Raises: InvalidParams for what is damaged, no animation, or too much."""
    if len(data) > MAX_ANIMATION_BYTES:
        raise InvalidParams(
            f"a {kind} of {len(data):,} bytes is too large; at most {MAX_ANIMATION_BYTES:,} are read: {REMEDY}"
        )
    from PIL import Image

    times, skipped = {"GIF": _of_gif, "WEBP": _of_webp, "PNG": _of_apng}[kind](data)
    if not times:
        raise InvalidParams(
            f"a {kind} of {len(data):,} bytes has no frames that follow each other: send it as a picture"
        )
    what = f"a {kind} of {len(times)} frames cannot be decoded"
    try:
        image = Image.open(io.BytesIO(data), formats=[kind])
        check_frame(*image.size)
        width, height = image.size
        if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
            width, height = height, width
    except EngineError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidParams("a frame of a video has too many pixels: send a smaller one") from None
    except Exception as error:  # what readers of headers raise of damaged ones is no closed list
        raise InvalidParams(f"{what} ({short(str(error))}); {REMEDY}") from None
    kept = Kept(Footage(len(times), _rate(times), width, height), choose, shrink, max_seconds)
    last = kept.numbers[-1]
    if (last + 1) * width * height > MAX_WALKED_PIXELS:
        raise InvalidParams(
            f"{last + 1} frames of {width} x {height} pixels lead to the last one wanted of a {kind}, too much: "
            f"{REMEDY}"
        )
    wanted = set(kept.numbers)
    try:
        for number in range(last + 1):
            image.seek(number + skipped)
            check_frame(*image.size)
            if number in wanted:
                kept.add(number, upright_rgb(image))
    except EngineError:
        raise
    except Exception as error:
        raise InvalidParams(f"{what} from frame {number} on ({short(str(error))}); {REMEDY}") from None
    return kept.frames()


def _rate(times: list[float | None]) -> float:
    """Of what is shown for that many milliseconds each; None: the file does not say."""
    if all(each is None for each in times):
        return DEFAULT_RATE
    shown = [_INSTEAD if each is None or each <= _SHORTEST else each for each in times]
    return usable_rate(len(times), sum(shown) / 1000)


def _of_gif(data: bytes) -> tuple[list[float | None], int]:
    """The times of frames that are there whole."""
    times: list[float | None] = []
    time: float | None = None
    at = 13 + _table(data[10:11])
    while at < len(data):
        kind, at = data[at], at + 1
        if kind == 0x21:
            if data[at : at + 1] == b"\xf9" and at + 5 < len(data):
                time = 10.0 * struct.unpack_from("<H", data, at + 3)[0]
            at = _after_blocks(data, at + 1)
        elif kind == 0x2C:
            at = _after_blocks(data, at + 9 + _table(data[at + 8 : at + 9]) + 1)
            if at <= len(data):
                times.append(time)
            time = None
        else:  # the end, or damage
            break
    return times, 0


def _table(flags: bytes) -> int:
    """Bytes of the colours that follow."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    """Behind the empty block; beyond the end where there is none."""
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _of_webp(data: bytes) -> tuple[list[float | None], int]:
    times: list[float | None] = []
    at = 12
    while at + 8 <= len(data):
        size = struct.unpack_from("<I", data, at + 4)[0]
        if data[at : at + 4] == b"ANMF" and at + 24 <= len(data):
            times.append(float(int.from_bytes(data[at + 20 : at + 23], "little")))
        at += 8 + size + size % 2
    return times, 0


def _of_apng(data: bytes) -> tuple[list[float | None], int]:
    """Also 1 where a picture comes first that is not of the animation."""
    times: list[float | None] = []
    at, skipped = 8, 0
    while at + 12 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        if name == b"fcTL" and at + 32 <= len(data):
            top, bottom = struct.unpack_from(">HH", data, at + 28)
            times.append(1000 * top / (bottom or 100))
        elif name == b"IDAT" and not times:
            skipped = 1
        at += 12 + size
    return times, skipped
