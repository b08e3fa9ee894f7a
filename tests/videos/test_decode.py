"""Videos that PyAV and Pillow write, each frame with its number in it; and bytes that are none."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from albireo.errors import InvalidParams, InvariantError
from albireo.videos import animations, decode, films, footage
from albireo.videos.decode import Footage, Frames, as_video, decoded

WIDTH, HEIGHT, BITS = 96, 64, 12
KINDS = {
    "ffv1": ("matroska", "ffv1", "bgr0", {}),
    "h264": ("mp4", "libx264", "yuv444p", {"qp": "0"}),
    "h264 with B-frames": ("mp4", "libx264", "yuv420p", {"qp": "10", "bf": "3", "g": "40", "x264-params": "b-adapt=0"}),
    "h264, open": ("matroska", "libx264", "yuv420p", {"qp": "10", "x264-params": "open-gop=1:keyint=20:bframes=3"}),
    "h264, refreshed": ("mp4", "libx264", "yuv420p", {"qp": "10", "x264-params": "intra-refresh=1:keyint=20"}),
    "h264, one keyframe": ("mov", "libx264", "yuv420p", {"qp": "10", "g": "1000", "bf": "2"}),
    "h264 in a stream": ("mpegts", "libx264", "yuv420p", {"qp": "10", "bf": "3", "g": "25"}),
    "h264 in AVI": ("avi", "libx264", "yuv420p", {"qp": "10", "bf": "2", "g": "25"}),
    "hevc": ("mp4", "libx265", "yuv420p", {"x265-params": "qp=10:keyint=25:bframes=3:log-level=none:pools=1"}),
    "mpeg4": ("avi", "mpeg4", "yuv420p", {"qmin": "2", "qmax": "2", "g": "12"}),
    "mpeg4 with B-frames": ("mp4", "mpeg4", "yuv420p", {"qmin": "2", "qmax": "2", "g": "12", "bf": "2"}),
    "mpeg2": ("mpegts", "mpeg2video", "yuv420p", {"qmin": "2", "qmax": "2", "g": "12", "bf": "2"}),
    "vp8": (
        "webm",
        "libvpx",
        "yuv420p",
        {"b": "4M", "g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    ),
    "vp9": (
        "webm",
        "libvpx-vp9",
        "yuv420p",
        {"b": "4M", "g": "30", "auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
    ),
    "mjpeg": ("avi", "mjpeg", "yuvj420p", {"qmin": "2", "qmax": "2"}),
}
CHOICES = [[0], [149], [0, 149], [3, 3, 4, 70], list(range(0, 150, 37)), [11, 12, 13, 24, 25, 26, 39, 40, 41, 148]]


def painted(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """The number, a bit a column, above; noise of its own below."""
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2 :] = (
        np.random.default_rng(number)
        .integers(0, 60, (height // 2 // 8 + 1, width // 8, 3))
        .repeat(8, 0)
        .repeat(8, 1)[: height - height // 2]
    )
    for bit in range(BITS):
        image[: height // 2, bit * width // BITS : (bit + 1) * width // BITS] = 255 * (number >> bit & 1)
    return image


def number_in(image: Image.Image) -> int:
    array = np.asarray(image.convert("L"))
    height, width = array.shape
    row = array[height // 4]
    return sum(int(row[(2 * bit + 1) * width // (2 * BITS)] > 127) << bit for bit in range(BITS))


def filmed(kind: str, count: int = 150, rate: Any = 25, times: Sequence[int] | None = None, **change: Any) -> bytes:
    container, codec, pixels, options = KINDS[kind]
    file = io.BytesIO()
    with av.open(file, "w", container) as writer:
        stream = writer.add_stream(codec, rate, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.thread_count = 1
        if "rotation" in change:
            stream.set_display_rotation(*change["rotation"])
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(painted(number), "rgb24").reformat(format=pixels)
            frame.pts = number if times is None else times[number]
            frame.time_base = Fraction(1) / Fraction(rate) if times is None else Fraction(1, 1000)
            writer.mux(stream.encode(frame))
        writer.mux(stream.encode())
    return file.getvalue()


@pytest.fixture(scope="module")
def films_of() -> Callable[[str], bytes]:
    made: dict[str, bytes] = {}

    def film(kind: str) -> bytes:
        if kind not in made:
            made[kind] = filmed(kind)
        return made[kind]

    return film


def these(*numbers: int) -> Callable[[Footage], list[int]]:
    return lambda footage: list(numbers)


def every(footage: Footage) -> range:
    return range(footage.num_frames)


def numbers_in(frames: Frames) -> list[int]:
    return [number_in(each) for each in frames.images]


@pytest.mark.parametrize("kind", KINDS)
def test_the_frames_chosen_are_those_whatever_lies_between(kind: str, films_of: Callable[[str], bytes]) -> None:
    data = films_of(kind)
    whole = decoded(data, every)
    assert whole.footage == Footage(150, 25.0, WIDTH, HEIGHT)
    assert numbers_in(whole) == list(range(150)) == list(whole.numbers)
    for numbers in CHOICES:
        found = decoded(data, these(*numbers))
        assert list(found.numbers) == numbers and found.footage == whole.footage
        assert numbers_in(found) == numbers
        if "refreshed" not in kind:
            for number, image in zip(numbers, found.images, strict=True):
                assert image.tobytes() == whole.images[number].tobytes(), number


def test_what_has_no_loss_is_what_was_written(films_of: Callable[[str], bytes]) -> None:
    found = decoded(films_of("ffv1"), these(5, 99))
    for number, image in zip(found.numbers, found.images, strict=True):
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), painted(number))


def test_only_what_leads_to_a_frame_is_decoded(
    films_of: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = 0
    real = films._decoded

    def counted(codec: Any, packet: Any) -> Any:
        nonlocal fed
        fed += packet is not None
        return real(codec, packet)

    monkeypatch.setattr(films, "_decoded", counted)
    decoded(films_of("h264 with B-frames"), these(0, 130))
    # to the first frame, for its size; the first again; and of the last forty those up to the one wanted
    assert fed < 40


@pytest.mark.parametrize("kind", ["h264 with B-frames", "ffv1"])
def test_rates_that_change_are_averaged_and_frames_counted(kind: str) -> None:
    steps = np.random.default_rng(1).integers(10, 90, 59)
    times = [0, *np.cumsum(steps).tolist()]
    found = decoded(filmed(kind, 60, 1000, times), every)
    assert numbers_in(found) == list(range(60))
    assert found.footage.num_frames == 60 and found.footage.rate == pytest.approx(59 / (times[-1] / 1000), rel=0.02)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24), Fraction(1, 2)])
def test_rates(rate: Fraction) -> None:
    for kind in ("h264 with B-frames", "vp9", "mpeg4"):
        assert decoded(filmed(kind, 12, rate), these(11)).footage.rate == pytest.approx(float(rate), rel=1e-3), kind


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize("mirrored", [False, True])
def test_frames_are_turned_as_their_file_says(degrees: int, mirrored: bool) -> None:
    plain = decoded(filmed("h264", 3), these(1)).images[0]
    found = decoded(filmed("h264", 3, rotation=(degrees, mirrored)), these(1))
    # FFmpeg's matrix turns against the clock, then mirrors
    want = plain.rotate(degrees, expand=True)
    want = want.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else want
    assert found.images[0].size == (found.footage.width, found.footage.height) == want.size
    assert np.abs(np.asarray(found.images[0], np.int16) - np.asarray(want, np.int16)).max() == 0


def test_frames_are_shrunk_as_they_come(films_of: Callable[[str], bytes]) -> None:
    data = films_of("ffv1")
    found = decoded(data, these(2, 140), shrink=lambda footage: (footage.width // 2, footage.height // 4))
    for number, image in zip(found.numbers, found.images, strict=True):
        want = Image.fromarray(painted(number)).resize((WIDTH // 2, HEIGHT // 4), Image.Resampling.BICUBIC)
        assert image.tobytes() == want.tobytes()
    assert (found.footage.width, found.footage.height) == (WIDTH, HEIGHT)
    frames = as_video(np.stack([painted(1), painted(2)]), every, shrink=lambda _: (48, 32))
    assert {each.size for each in frames.images} == {(48, 32)} and numbers_in(frames) == [1, 2]


def moving(kind: str, count: int = 20, times: Any = 50, **options: Any) -> bytes:
    file = io.BytesIO()
    images = [Image.fromarray(painted(number)) for number in range(count)]
    images[0].save(file, kind, save_all=True, append_images=images[1:], duration=times, loop=0, **options)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {})])
def test_animations(kind: str, options: dict[str, Any]) -> None:
    data = moving(kind, **options)
    whole = decoded(data, every)
    assert whole.footage == Footage(20, 20.0, WIDTH, HEIGHT) and numbers_in(whole) == list(range(20))
    found = decoded(data, these(0, 7, 7, 19))
    assert numbers_in(found) == [0, 7, 7, 19]
    assert [each.tobytes() for each in found.images] == [whole.images[each].tobytes() for each in found.numbers]
    if kind != "GIF":
        assert np.array_equal(np.asarray(found.images[1]), painted(7))
    uneven = moving(kind, 4, [100, 200, 300, 400], **options)
    assert decoded(uneven, every).footage.rate == pytest.approx(4.0)
    # browsers show what is shown for no time for a tenth of a second
    assert decoded(moving(kind, 4, 10, **options), every).footage.rate == pytest.approx(10.0)


def test_what_an_apng_shows_where_it_does_not_move_is_no_frame() -> None:
    found = decoded(moving("PNG", 5, default_image=True), every)
    assert numbers_in(found) == [1, 2, 3, 4]


def test_behind_transparency_is_white() -> None:
    file = io.BytesIO()
    images = [Image.new("RGBA", (8, 8), (10, 20, 30, alpha)) for alpha in (0, 255)]
    images[0].save(file, "PNG", save_all=True, append_images=images[1:], duration=100)
    found = decoded(file.getvalue(), every)
    assert [each.getpixel((3, 3)) for each in found.images] == [(255, 255, 255), (10, 20, 30)]


def test_a_picture_is_no_video() -> None:
    for kind in ("PNG", "WEBP", "JPEG"):
        file = io.BytesIO()
        Image.fromarray(painted(1)).save(file, kind)
        with pytest.raises(InvalidParams, match="picture"):
            decoded(file.getvalue(), every)


def only_sound() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", "mp4") as writer:
        stream = writer.add_stream("aac", 16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        writer.mux(stream.encode(frame))
        writer.mux(stream.encode())
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no bytes"),
        (b"hello, world, this is no video at all", "no video; a whole video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n", "a playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no video"),
        (b"FLV\1" + bytes(40), "FLV"),
        (b"\0\0\0\x20ftypheic" + bytes(40), "HEIF"),
        (b"\0\0\0\x20ftypisom" + bytes(40), "MP4"),
        (b"\x1aE\xdf\xa3" + bytes(40), "Matroska"),
        (b"RIFF\0\0\0\0AVI " + bytes(400), "AVI"),
        (b"G" + bytes(187) + b"G" + bytes(187), "MPEG-TS"),
        (b"GIF89a", "no frames"),
        (b"RIFF\0\0\0\0WEBP", "no frames"),
        (b"\x89PNG\r\n\x1a\n", "no frames"),
    ],
)
def test_what_is_no_video(data: bytes, says: str) -> None:
    with pytest.raises(InvalidParams, match=says):
        decoded(data, every)


def test_sounds_alone_and_no_frames() -> None:
    with pytest.raises(InvalidParams, match="no video in them"):
        decoded(only_sound(), every)
    with pytest.raises(InvalidParams):
        decoded(filmed("ffv1", 0), every)


@pytest.mark.parametrize("kind", ["ffv1", "h264 in a stream", "mpeg4", "vp9"])
def test_a_recording_that_was_cut_off_ends_with_its_last_frame(kind: str, films_of: Callable[[str], bytes]) -> None:
    data = films_of(kind)
    counts = []
    for part in (0.3, 0.6, 0.9):
        found = decoded(data[: int(len(data) * part)], every)
        counts.append(found.footage.num_frames)
        # of those that came last, some may be shown before one that is not there
        shown = numbers_in(found)
        assert shown[: counts[-1] - 4] == list(range(counts[-1] - 4)) and shown == sorted(shown)
    assert 20 < counts[0] < counts[1] < counts[2] < 150


def test_an_mp4_that_was_not_sent_whole_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "video.mp4"
    with (
        av.open(io.BytesIO(filmed("h264", 30))) as reader,
        av.open(str(place), "w", options={"movflags": "faststart"}) as writer,
    ):
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.size:
                packet.stream = stream
                writer.mux(packet)
    data = place.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat") and numbers_in(decoded(data, every)) == list(range(30))
    for length in (len(data) - 1, len(data) // 2, data.index(b"mdat")):
        with pytest.raises(InvalidParams, match=r"send it whole|of MP4 cannot"):
            decoded(data[:length], these(0))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_an_error_or_a_video(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    whole = np.frombuffer(filmed(kind, 25), np.uint8)
    before = threads()
    refused = 0
    for turn in range(40):
        data = whole.copy()
        if turn % 4 == 3:
            data = data[: rng.integers(1, len(data))]
        else:
            most = len(data) if turn % 2 else min(len(data), 1500)
            places = rng.integers(0, most, rng.integers(1, 20))
            data[places] = rng.integers(0, 256, len(places))
        try:
            found = decoded(
                data.tobytes(), lambda footage: sorted({0, footage.num_frames // 2, footage.num_frames - 1})
            )
        except InvalidParams:
            refused += 1
        else:
            size = (found.footage.width, found.footage.height)
            assert all(each.size == size and each.mode == "RGB" for each in found.images)
    assert refused
    assert threads() <= before


def test_one_thread_decodes(films_of: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a damaged VP9, several made FFmpeg 8.1 end the process."""
    seen = []
    real = films._decoded
    monkeypatch.setattr(films, "_decoded", lambda codec, packet: (real(codec, packet), seen.append(threads()))[0])
    before = threads()
    decoded(films_of("vp9"), these(0, 140))
    assert len(seen) > 20 and max(seen) <= before


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_damage_of_animations_is_an_error_or_a_video(kind: str) -> None:
    rng = np.random.default_rng(len(kind))
    whole = np.frombuffer(moving(kind, 6), np.uint8)
    refused = 0
    for turn in range(100):
        data = whole.copy()
        if turn % 4 == 3:
            data = data[: rng.integers(1, len(data))]
        places = rng.integers(0, len(data) if turn % 2 else min(len(data), 1000), rng.integers(1, 10))
        data[places] = rng.integers(0, 256, len(places))
        try:
            assert decoded(data.tobytes(), every).images
        except InvalidParams:
            refused += 1
    assert refused


def test_sizes_that_are_too_large_are_refused_before_they_are_decoded() -> None:
    wide = bytearray(moving("GIF", 3))
    wide[6:10] = b"\xff\xff\xff\xff"
    with pytest.raises(InvalidParams, match="pixels"):
        decoded(bytes(wide), every)
    data = filmed("ffv1", 3)
    # of Matroska: the elements PixelWidth and PixelHeight, of two bytes each
    at = data.index(b"\xb0\x81" + bytes([WIDTH]))
    huge = data[:at] + b"\xb0\x82\xff\xff" + data[at + 3 :]
    at = huge.index(b"\xba\x81" + bytes([HEIGHT]))
    huge = huge[:at] + b"\xba\x82\xff\xff" + huge[at + 3 :]
    with pytest.raises(InvalidParams):
        decoded(huge, every)


def test_limits(films_of: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    data = films_of("mpeg4")
    with pytest.raises(InvalidParams, match=r"lasts 6\.0 s; at most 5 s"):
        decoded(data, every, 5)
    with pytest.raises(InvalidParams, match=r"lasts 1\.0 s; at most 0 s"):
        decoded(moving("GIF"), every, 0.4)
    with monkeypatch.context() as patch:
        patch.setattr(footage, "MAX_KEPT_BYTES", 10 * 3 * WIDTH * HEIGHT)
        assert len(decoded(data, lambda _: range(10)).images) == 10
        with pytest.raises(InvalidParams, match="11 frames of 96 x 64 pixels take"):
            decoded(data, lambda _: range(11))
        assert len(decoded(data, lambda _: range(40), shrink=lambda _: (48, 32)).images) == 40
    with monkeypatch.context() as patch:
        patch.setattr(films, "MAX_WALKED_PIXELS", 20 * WIDTH * HEIGHT)
        assert decoded(films_of("h264"), these(3)).images
        with pytest.raises(InvalidParams, match="lead to the frames wanted"):
            decoded(films_of("h264"), these(149))
        patch.setattr(films, "MAX_PACKETS", 100)
        with pytest.raises(InvalidParams, match="more than 100 frames"):
            decoded(data, these(3))
    with monkeypatch.context() as patch:
        patch.setattr(animations, "MAX_WALKED_PIXELS", 5 * WIDTH * HEIGHT)
        assert decoded(moving("GIF"), these(4)).images
        with pytest.raises(InvalidParams, match="too much"):
            decoded(moving("GIF"), these(5))
        patch.setattr(animations, "MAX_ANIMATION_BYTES", 100)
        with pytest.raises(InvalidParams, match="at most 100"):
            decoded(moving("GIF"), these(0))
    monkeypatch.setattr(decode, "MAX_VIDEO_BYTES", 100)
    with pytest.raises(InvalidParams, match="at most 100 are read"):
        decoded(data, every)


@pytest.mark.parametrize("numbers", [[], [3, 2], [-1], [150]])
def test_a_choice_that_is_none_is_a_bug(numbers: list[int], films_of: Callable[[str], bytes]) -> None:
    for call in (
        lambda: decoded(films_of("ffv1"), these(*numbers)),
        lambda: as_video([painted(0)] * 150, these(*numbers)),
    ):
        with pytest.raises(InvariantError, match="chosen"):
            call()


def test_what_chooses_may_fail_in_its_own_words(films_of: Callable[[str], bytes]) -> None:
    def choose(footage: Footage) -> list[int]:
        raise KeyError(footage.num_frames)

    with pytest.raises(KeyError, match="150"):
        decoded(films_of("ffv1"), choose)


def test_no_other_file_is_opened(films_of: Callable[[str], bytes], tmp_path: Path) -> None:
    """A track of an MP4 may name another file."""
    secret = tmp_path / "secret.mov"
    secret.write_bytes(filmed("mjpeg", 3))
    data = filmed("h264", 3)
    at = data.index(b"url \0\0\0\1")
    # the flag that says that samples are in this file is taken back, the place is what follows
    other = data[: at + 7] + b"\0" + data[at + 8 :]
    with contextlib.suppress(InvalidParams):
        assert numbers_in(decoded(other, every)) == [0, 1, 2]


def test_without_libraries(films_of: Callable[[str], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InvalidParams, match=r"PyAV.*pip install 'albireo\[video\]'"):
        decoded(films_of("ffv1"), every)
    assert numbers_in(decoded(moving("GIF", 3), every)) == [0, 1, 2]
    monkeypatch.setitem(sys.modules, "PIL", None)
    for call in (decoded, as_video):
        with pytest.raises(InvalidParams, match=r"Pillow.*pip install 'albireo\[video\]'"):
            call(b"GIF89a", every)


def test_frames_as_vllm_takes_them(films_of: Callable[[str], bytes]) -> None:
    array = np.stack([painted(number) for number in range(8)])
    pictures = [Image.fromarray(each) for each in array]
    for value in (array, list(array), tuple(pictures), pictures, (array, {}), [pictures, {"fps": None}]):
        found = as_video(value, these(1, 1, 6))
        assert found.numbers == (1, 1, 6) and numbers_in(found) == [1, 1, 6]
        assert found.footage == Footage(8, 24.0, WIDTH, HEIGHT)
        assert np.array_equal(np.asarray(found.images[2]), painted(6))
    assert as_video(found, every) is found
    assert as_video((array, {"fps": 2}), every).footage.rate == 2.0
    assert as_video((array, {"total_num_frames": 8, "duration": 2.0}), every).footage.rate == 4.0
    pair = as_video(pictures[:2], every)
    assert numbers_in(pair) == [0, 1]


def test_frames_that_were_chosen_already() -> None:
    array = np.stack([painted(number) for number in (0, 30, 60)])
    said = {
        "fps": 30.0,
        "duration": 3.0,
        "total_num_frames": 90,
        "frames_indices": [0, 30, 60],
        "video_backend": "opencv",
    }

    def never(footage: Footage) -> list[int]:
        raise AssertionError

    found = as_video((array, {**said, "do_sample_frames": False}), never)
    assert found.numbers == (0, 30, 60) and found.footage == Footage(90, 30.0, WIDTH, HEIGHT)
    assert numbers_in(found) == [0, 30, 60]
    plain = as_video((array, {"do_sample_frames": False}), never)
    assert plain.numbers == (0, 1, 2) and plain.footage.rate == 24.0
    with pytest.raises(InvalidParams, match="do_sample_frames"):
        as_video((array, said), every)
    with pytest.raises(InvalidParams, match="3 frames, and frames_indices has 2"):
        as_video((array, {"frames_indices": [0, 1], "do_sample_frames": False}), every)


def test_of_a_file_the_rate_can_be_said(films_of: Callable[[str], bytes]) -> None:
    data = films_of("ffv1")
    seen = []

    def choose(footage: Footage) -> list[int]:
        seen.append(footage.rate)
        return [3]

    assert as_video((memoryview(data), {"fps": 5}), choose).footage.rate == 5.0 and seen == [5.0]
    assert len(as_video((data, {"do_sample_frames": False}), choose).images) == 150 and len(seen) == 1
    with pytest.raises(InvalidParams, match="frames_indices"):
        as_video((data, {"frames_indices": [0]}), every)
    # how long it lasts is a matter of the rate
    with pytest.raises(InvalidParams, match=r"lasts 30\.0 s"):
        as_video((data, {"fps": 5}), every, 10)


@pytest.mark.parametrize(
    "said",
    [
        *({"fps": each} for each in (0, -1, np.nan, np.inf, "25", True, 1e9, 10**400)),
        *({"duration": each} for each in (0, -2.0, np.nan, "3")),
        *({"total_num_frames": each} for each in (0, 1.5, True, -3)),
        *({"frames_indices": each} for each in (3, ["a"], [1, 0], [-1, 2], "01")),
        {"do_sample_frames": 1},
        {"video_backend": 3},
        {"FPS": 3},
        {3: 3},
    ],
    ids=repr,
)
def test_what_is_said_must_make_sense(said: dict[Any, Any]) -> None:
    name = str(next(iter(said)))
    with pytest.raises(InvalidParams, match=name):
        as_video((np.stack([painted(0), painted(1)]), said), every)


@pytest.mark.parametrize(
    "value",
    [
        *(None, 3, "video.mp4", [], (), [1, 2], [None], {}),
        *(np.zeros(shape, np.uint8) for shape in ((0, 4, 4, 3), (2, 4, 4), (2, 3, 4, 4), (2, 4, 0, 3))),
        np.zeros((2, 4, 4, 3)),
        [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)],
        [np.zeros((4, 4), np.uint8)],
        [Image.new("RGB", (4, 4)), Image.new("RGB", (5, 4))],
    ],
    ids=lambda value: str(value)[:20].replace("\n", ""),
)
def test_values_that_are_no_video(value: Any) -> None:
    with pytest.raises(InvalidParams):
        as_video(value, every)
