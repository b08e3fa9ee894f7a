"""MP4, WebM, Matroska, AVI and MPEG-TS -> chosen frames, decoded by FFmpeg.

Called by decode.py. The only file that knows PyAV, which is imported when it is needed. FFmpeg is given the bytes, the
name of their format, and lists of what it may use: it opens nothing else, whatever a file asks for. A file is read
twice, front to back: first its packets are listed, which says how many frames there are and where each is; then only
those are decoded that lead from a keyframe to a frame that is wanted.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from albireo.errors import EngineError, InvalidParams, short
from albireo.videos.footage import (
    MAX_PIXELS,
    REMEDY,
    Choose,
    Footage,
    Frames,
    Kept,
    Shrink,
    check_frame,
    usable_rate,
)

if TYPE_CHECKING:
    from PIL import Image

#: That FFmpeg decodes for one video: two and a half hours of 720p at 30 frames a second, all of them.
MAX_WALKED_PIXELS = 2**38
MAX_PACKETS = 2**22
#: What FFmpeg calls them. Whatever is not here is not run on bytes of others.
_CODECS = (
    *("h264", "hevc", "av1", "libdav1d", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4"),
    *("h263", "mjpeg", "prores", "ffv1", "huffyuv", "ffvhuff", "rawvideo", "png"),
)
_NAMES = {"mov": "MP4", "matroska": "WebM or Matroska", "avi": "AVI", "mpegts": "MPEG-TS"}
#: Packets that may fail before the first frame: a recording may begin anywhere.
_MAX_FAILED = 1000


def container_of(data: bytes) -> str | None:
    """FFmpeg's name of what reads a file that begins so."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") and data[8:12] not in _PICTURES:
        return "mov"
    if data[:4] == b"\x1aE\xdf\xa3":
        return "matroska"
    if data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        return "avi"
    is_stream = any(len(data) > at + step and data[at] == data[at + step] == 0x47 for at, step in ((0, 188), (4, 192)))
    return "mpegts" if is_stream else None


_PICTURES = (b"avif", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")


@dataclass(slots=True)
class _List:
    """The packets of a file. Fields: times: when each is shown; None: it does not say. is_key, is_shown: of each.
    first: a frame, decoded and upright. unit: seconds of a time. said_rate: frames a second; 0: the file does not say.
    is_ordered: times say which frame is which."""

    times: list[int | None]
    is_key: list[bool]
    is_shown: list[bool]
    first: Image.Image
    unit: float
    said_rate: float
    is_ordered: bool


def film(data: bytes, container: str, choose: Choose, shrink: Shrink | None, max_seconds: float) -> Frames:
    """Raises: InvalidParams for what is damaged, has no video that is read, or is too much; or PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise InvalidParams(
            "videos in MP4, WebM, Matroska, AVI and MPEG-TS need PyAV, which is not installed: pip install "
            "'albireo[video]'"
        ) from None
    what = f"{len(data):,} bytes of {_NAMES[container]}"
    with _refused(what):
        found = _listed(data, container, what)
    shown = [index for index, is_shown in enumerate(found.is_shown) if is_shown]
    if found.is_ordered:
        shown.sort(key=lambda index: found.times[index] or 0)
    kept = Kept(_footage(found, shown), choose, shrink, max_seconds)
    whole, by_time = [(0, len(found.times))], _by_time(found, shown)
    with _refused(what):
        is_true = by_time is not None and _collect(data, container, kept, _segments(found, shown, kept), by_time)
        if is_true and kept.missing:  # what is called a keyframe is none
            is_true = _collect(data, container, kept, whole, by_time)
        if not is_true:
            kept.forget()
            _collect(data, container, kept, whole, None)
    if kept.missing:
        raise InvalidParams(
            f"{what} cannot be decoded at frame {kept.missing[0]} of {kept.footage.num_frames}: {REMEDY}"
        )
    return kept.frames()


@contextlib.contextmanager
def _refused(what: str) -> Iterator[None]:
    try:
        yield
    except EngineError:
        raise
    except Exception as error:  # what FFmpeg and its binding raise of damaged files is no closed list
        raise InvalidParams(f"{what} cannot be decoded ({short(_reason(error))}): {REMEDY}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or type(error).__name__)


def _no_other_file(*_: Any) -> Any:
    raise PermissionError("a video may not name another file")


@contextlib.contextmanager
def _opened(data: bytes, container: str) -> Iterator[tuple[Any, Any]]:
    """The file, and the stream of its video."""
    import av

    options = {
        "codec_whitelist": ",".join(_CODECS),
        "format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts",
        "protocol_whitelist": "none",
        "max_streams": "100",
        "max_pixels": str(MAX_PIXELS),
        "threads": "1",
    }
    with av.open(io.BytesIO(data), "r", container, options, metadata_errors="ignore", io_open=_no_other_file) as file:
        cover = av.stream.Disposition.attached_pic
        streams = [each for each in file.streams.video if not each.disposition & cover]
        if not streams:
            raise InvalidParams(
                f"{len(data):,} bytes of {_NAMES[container]} have no video in them: send sounds as sounds"
            )
        stream, codec = streams[0], streams[0].codec_context
        if codec is None or codec.name not in _CODECS:
            name = getattr(codec, "name", "an unknown codec")
            raise InvalidParams(f"a video in {short(name)} is not read: {REMEDY}")
        check_frame(codec.width, codec.height)
        for each in file.streams:
            if each is not stream:
                each.discard = av.stream.Discard.all
        codec.options = {"max_pixels": str(MAX_PIXELS)}
        # of damaged files, threads make FFmpeg read what another thread has not written yet, or has freed
        codec.thread_type, codec.thread_count = "NONE", 1
        yield file, stream


def _listed(data: bytes, container: str, what: str) -> _List:
    times: list[int | None] = []
    is_key, is_shown, clocks = list[bool](), list[bool](), list[int]()
    first: Any = None
    num_failed, is_cut = 0, False
    with _opened(data, container) as (file, stream):
        if container == "mov" and any(each.pos + each.size > len(data) for each in stream.index_entries):
            raise InvalidParams(f"{what} are not all: the file says that it is longer; send it whole")
        codec = stream.codec_context
        has_hidden = codec.name == "vp8"
        for packet in file.demux(stream):
            if not packet.size:
                continue
            if len(times) == MAX_PACKETS:
                raise InvalidParams(f"a video has more than {MAX_PACKETS} frames: cut it")
            times.append(packet.pts)
            is_key.append(packet.is_keyframe)
            # of VP8 a bit says that what is decoded is for later frames only
            is_shown.append(not (packet.is_discard or (has_hidden and not bytes(packet)[0] & 0x10)))
            is_cut = packet.is_corrupt
            if packet.dts is not None:
                clocks.append(packet.dts)
            if first is None and num_failed < _MAX_FAILED:
                decoded, has_failed = _decoded(codec, packet)
                num_failed += has_failed
                first = next(iter(decoded), None)
        if first is None:
            first = next(iter(_decoded(codec, None)[0]), None)
        if first is None:
            raise InvalidParams(f"no frame of {what} can be decoded: {REMEDY}")
        if is_cut and sum(is_shown) > 1:  # the end of the file is in its midst
            is_shown[-1] = False
        is_ordered = first.pts is not None and clocks == sorted(clocks)
        if container == "avi" and codec.has_b_frames:  # it has no times, and FFmpeg's are guesses
            is_ordered = False
        if is_ordered:
            # what a recording begins with may need what was before it
            is_shown = [
                is_one and time is not None and time >= first.pts for is_one, time in zip(is_shown, times, strict=True)
            ]
            moments = [time for is_one, time in zip(is_shown, times, strict=True) if is_one]
            is_ordered = 0 < len(moments) == len(set(moments)) and None not in times
        unit = float(stream.time_base or 0)
        return _List(times, is_key, is_shown, _upright(first), unit, float(stream.average_rate or 0), is_ordered)


def _decoded(codec: Any, packet: Any) -> tuple[list[Any], bool]:
    """Frames, and whether the packet is damaged."""
    from av.error import FFmpegError

    try:
        return codec.decode(packet), False
    except EOFError:
        return [], False
    except (FFmpegError, ValueError, OSError):
        return [], True


def _footage(found: _List, shown: list[int]) -> Footage:
    count = len(shown)
    rate = usable_rate(1, 1 / found.said_rate) if found.said_rate > 0 else usable_rate(1, 0)
    if found.is_ordered and count > 1:
        span = ((found.times[shown[-1]] or 0) - (found.times[shown[0]] or 0)) * found.unit
        # times are rounded: what the file says is the better number where both agree
        if abs((count - 1) / rate - span) > 0.01 * span + 2 * found.unit:
            rate = usable_rate(count - 1, span)
    return Footage(count, rate, *found.first.size)


def _by_time(found: _List, shown: list[int]) -> dict[int | None, int] | None:
    """Of a time the number of its frame; None: frames are counted."""
    return {found.times[index]: number for number, index in enumerate(shown)} if found.is_ordered else None


def _segments(found: _List, shown: list[int], kept: Kept) -> list[tuple[int, int]]:
    """Which packets lead to what is wanted: each run from a keyframe to one behind a frame."""
    keys = np.array([index for index, is_key in enumerate(found.is_key) if is_key] or [0])
    parts: list[tuple[int, int]] = []
    for number in kept.missing:
        index = shown[number]
        time = found.times[index] or 0
        start, at = 0, int(np.searchsorted(keys, index, "right")) - 1
        # what is shown before its keyframe may need what came before that
        while at >= 0:
            key = int(keys[at])
            if (found.times[key] or 0) <= time:
                start = key
                break
            at -= 1
        if parts and start <= parts[-1][1]:
            parts[-1] = (min(parts[-1][0], start), max(parts[-1][1], index + 1))
        else:
            parts.append((start, index + 1))
    return parts


def _collect(
    data: bytes, container: str, kept: Kept, parts: list[tuple[int, int]], by_time: dict[int | None, int] | None
) -> bool:
    """Decodes those packets and keeps what is missing. A frame that the decoder leaves out, when all before it were
    decoded, is the one before: so a screen shows it. False: times mislead, and what was kept is wrong."""
    is_whole = parts[0][0] == 0 and len(parts) == 1
    if by_time is not None:
        _check_walk(sum(end - start for start, end in parts), kept.footage.width * kept.footage.height)
    # what is not read to its end is closed here, with the threads that decode it
    with contextlib.closing(_walked(data, container, parts)) as frames:
        return _keep(kept, frames, by_time, is_whole)


def _keep(kept: Kept, frames: Iterator[Any], by_time: dict[int | None, int] | None, is_whole: bool) -> bool:
    wanted = kept.missing
    at, num_walked, last, last_number = 0, 0, None, -1
    for count, frame in enumerate(frames):
        num_walked += frame.width * frame.height
        check_frame(frame.width, frame.height)
        _check_walk(1, num_walked)
        number = count if by_time is None else by_time.get(frame.pts)
        if number is None:
            continue
        if number < last_number:  # times mislead
            return False
        while at < len(wanted) and wanted[at] < number:
            if is_whole:
                _stand_in(kept, wanted[at], last, last_number)
            at += 1
        if at < len(wanted) and wanted[at] == number:
            kept.add(number, _upright(frame))
            at += 1
        last, last_number = frame, number
        if at == len(wanted):
            return True
    if is_whole:
        for number in wanted[at:]:
            _stand_in(kept, number, last, last_number)
    return True


def _check_walk(num_frames: int, num_pixels: int) -> None:
    if num_frames * num_pixels > MAX_WALKED_PIXELS:
        raise InvalidParams(
            f"{num_frames * num_pixels:,} pixels lead to the frames wanted of a video; at most {MAX_WALKED_PIXELS:,} "
            "are decoded: send a shorter video, or a smaller one"
        )


def _stand_in(kept: Kept, number: int, frame: Any, its_number: int) -> None:
    """For at most a second; what is longer away is damage."""
    if frame is not None and number - its_number <= max(1.0, kept.footage.rate):
        kept.add(number, _upright(frame))


def _walked(data: bytes, container: str, parts: list[tuple[int, int]]) -> Generator[Any, None, None]:
    """The frames of packets from a number up to another, of all parts in order."""
    with _opened(data, container) as (file, stream):
        codec, index, num_failed, has_begun = stream.codec_context, 0, 0, False
        rest = iter(parts)
        start, end = next(rest)
        for packet in file.demux(stream):
            if not packet.size:
                continue
            if index >= start:
                frames, has_failed = _decoded(codec, packet)
                num_failed += has_failed
                if has_failed and (has_begun or num_failed > _MAX_FAILED):
                    return
                has_begun = has_begun or bool(frames)
                yield from frames
            index += 1
            if index == end:
                yield from _decoded(codec, None)[0]
                if (part := next(rest, None)) is None:
                    return
                codec.flush_buffers()
                start, end = part
        yield from _decoded(codec, None)[0]


def _upright(frame: Any) -> Image.Image:
    """In RGB, turned and mirrored as its matrix says, which maps (x, y) to (a x + c y, b x + d y)."""
    from av.sidedata import sidedata
    from PIL import Image

    image: Image.Image = frame.to_image(threads=1)
    # a frame's own side_data would hold on to the frame, and that to the threads that decode
    container: Any = sidedata.SideDataContainer
    if (matrix := container(frame).get("DISPLAYMATRIX")) is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image = image.transpose(Image.Transpose.TRANSPOSE)
        a, d = c, b
    if a < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if d < 0 else image
