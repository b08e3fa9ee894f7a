"""Pictures decoded as transformers loads them; everything else is refused in words of ours."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from albireo.errors import InvalidParams
from albireo.images.decode import FORMATS, MAX_IMAGE_BYTES, MAX_PIXELS, as_image, decode_image
from images.pictures import SIZES, encoded, picture

image_utils = pytest.importorskip("transformers.image_utils")
image_transforms = pytest.importorskip("transformers.image_transforms")

OPAQUE = [size for size in SIZES.values() if "A" not in size[2]]
ORIENTATION = 0x0112


def loaded(data: bytes) -> np.ndarray:
    return np.asarray(image_utils.load_image(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_is_decoded_as_transformers_does(form: str) -> None:
    data = encoded(picture(40, 30), form)
    image = decode_image(data)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), loaded(data))


@pytest.mark.parametrize("size", OPAQUE, ids=str)
def test_every_mode_is_decoded_as_transformers_does(size: tuple[int, int, str]) -> None:
    data = encoded(picture(*size), "PNG")
    assert np.array_equal(np.asarray(decode_image(data)), loaded(data))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(picture(40, 30), "JPEG", exif=exif)
    image = decode_image(data)
    assert image.size == ((40, 30) if orientation < 5 else (30, 40))
    assert np.array_equal(np.asarray(image), loaded(data))
    assert np.array_equal(np.asarray(as_image(Image.open(io.BytesIO(data)))), np.asarray(image))


@pytest.mark.parametrize("size", [(75, 100, "RGBA"), (100, 75, "LA")], ids=str)
def test_behind_transparency_is_white_as_for_processors_of_transformers(size: tuple[int, int, str]) -> None:
    image = picture(*size)
    expected = image_transforms.convert_to_rgb(image, return_numpy=True)
    assert np.array_equal(np.asarray(decode_image(encoded(image, "PNG"))), expected)
    assert np.array_equal(np.asarray(as_image(image)), expected)


def test_a_colour_said_to_be_transparent_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=1)
    assert np.asarray(decode_image(data)).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_of_an_animation_the_first_frame_is_decoded() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((200, 0, 0), (0, 200, 0))]
    for form in ("GIF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert np.array_equal(np.asarray(decode_image(data)), np.asarray(frames[0])), form


def test_arrays_are_pictures_when_they_are_colours() -> None:
    colours = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)
    assert np.array_equal(np.asarray(as_image(colours)), colours)
    assert np.array_equal(np.asarray(as_image(colours[::-1, ::2])), colours[::-1, ::2])
    assert np.array_equal(np.asarray(as_image(memoryview(encoded(Image.fromarray(colours), "PNG")))), colours)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((5, 7), np.uint8),
        np.zeros((3, 5, 7), np.uint8),
        np.zeros((5, 7, 3)),
        np.zeros((0, 7, 3), np.uint8),
        "a",
        1,
    ],
    ids=["flat", "channels first", "of floats", "empty", "text", "number"],
)
def test_other_values_are_refused(value: Any) -> None:
    with pytest.raises(InvalidParams, match="is no picture"):
        as_image(value)


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\n", b"hello, I am no picture", b"\xff\xd8\xff\xe0"], ids=repr)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidParams, match="PNG, JPEG, WEBP, GIF, BMP, TIFF is wanted"):
        decode_image(data)


@pytest.mark.parametrize("form", ["PPM", "ICO", "TGA", "PCX"])
def test_other_formats_are_refused(form: str) -> None:
    data = encoded(picture(16, 16), form)
    assert form == "TGA" or Image.open(io.BytesIO(data)).size
    with pytest.raises(InvalidParams, match="no picture"):
        decode_image(data)


@pytest.mark.parametrize("form", FORMATS)
def test_truncated_pictures_are_refused(form: str) -> None:
    data = encoded(picture(200, 150), form)
    for fraction in (0.3, 0.6, 0.9):
        with pytest.raises(InvalidParams, match="is wanted"):
            decode_image(data[: int(len(data) * fraction)])


@pytest.mark.parametrize("form", FORMATS)
def test_damage_of_any_kind_is_a_refusal_or_a_picture(form: str) -> None:
    numbers = np.random.default_rng(FORMATS.index(form))
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    options = {"exif": exif} if form in ("JPEG", "PNG", "WEBP") else {}
    whole = np.frombuffer(encoded(picture(24, 20), form, **options), np.uint8)
    refused = 0
    for _ in range(150):
        damaged = whole.copy()
        places = numbers.integers(0, len(whole) if numbers.random() < 0.5 else 100, numbers.integers(1, 6))
        damaged[places % len(whole)] = numbers.integers(0, 256, len(places))
        try:
            assert decode_image(damaged.tobytes()).mode == "RGB"
        except InvalidParams:
            refused += 1
    assert refused


def png_of_size(width: int, height: int) -> bytes:
    """The head of a picture, which is as small whatever it promises."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(100))
    parts = [struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, body)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("sides", [(9460, 9460), (13000, 13000), (60000, 60000)], ids=str)
def test_too_many_pixels_are_refused_before_they_are_decoded(sides: tuple[int, int]) -> None:
    assert sides[0] * sides[1] > MAX_PIXELS
    with pytest.raises(InvalidParams, match=str(MAX_PIXELS)):
        decode_image(png_of_size(*sides))


def test_the_number_of_pixels_is_no_matter_below_the_limit() -> None:
    with pytest.raises(InvalidParams, match=r"9459 x 9459 pixels \(PNG\) cannot be decoded"):
        decode_image(png_of_size(9459, 9459))


def test_too_many_bytes_are_refused() -> None:
    with pytest.raises(InvalidParams, match=f"at most {MAX_IMAGE_BYTES}"):
        decode_image(bytes(MAX_IMAGE_BYTES + 1))


def test_without_pillow_a_picture_is_refused_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    for call in (decode_image, as_image):
        with pytest.raises(InvalidParams, match=r"pip install 'albireo\[images\]'"):
            call(b"")
