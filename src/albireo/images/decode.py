"""The bytes of a picture -> the picture: upright, in RGB, on white where it is transparent.

Called by the front doors. Bytes are hostile until decoded: their number, their format and the number of pixels are
checked first. Pillow is imported here only, and when it is needed. Does not know where bytes come from.
"""

from __future__ import annotations

import importlib.util
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from albireo.errors import InvalidParams, short
from albireo.media.medium import PICTURE

if TYPE_CHECKING:
    from PIL import Image

MAX_IMAGE_BYTES = PICTURE.max_bytes
#: From here on Pillow itself warns of a bomb: 256 MiB as RGB.
MAX_PIXELS = 89_478_485
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
_ALLOWED = f"a whole picture in one of {', '.join(FORMATS)} is wanted"


def decode_image(data: bytes) -> Image.Image:
    """The picture in data; of an animation its first frame.

    Raises: InvalidParams for what is no picture, damaged, too large, or where Pillow is missing.
    """
    _require_pillow()
    from PIL import Image

    if len(data) > MAX_IMAGE_BYTES:
        raise InvalidParams(f"a picture has {len(data)} bytes; at most {MAX_IMAGE_BYTES} are read: send a smaller one")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidParams(f"a picture has more than {MAX_PIXELS} pixels: send a smaller one") from None
    except Exception:  # what readers of headers raise of damaged ones is no closed list
        raise InvalidParams(f"{len(data)} bytes that begin with {short(data[:8])} are no picture; {_ALLOWED}") from None
    return _upright_rgb(image)


def as_image(value: Any) -> Image.Image:
    """The picture that a caller gives: its bytes, a PIL.Image.Image, or an array uint8 [height, width, 3].

    Raises: InvalidParams, as decode_image; also for anything else.
    """
    _require_pillow()
    from PIL import Image

    if isinstance(value, (bytes, bytearray, memoryview)):
        return decode_image(bytes(value))
    if isinstance(value, Image.Image):
        return _upright_rgb(value)
    if not isinstance(value, np.ndarray):
        raise InvalidParams(f"{short(value)} is no picture; bytes, a PIL image or an array of numpy is wanted")
    if value.dtype != np.uint8 or value.ndim != 3 or value.shape[2] != 3 or not value.size:
        raise InvalidParams(
            f"an array {value.dtype} {list(value.shape)} is no picture; uint8 [height, width, 3] is wanted"
        )
    return _upright_rgb(Image.fromarray(np.ascontiguousarray(value)))


def _upright_rgb(image: Image.Image) -> Image.Image:
    """Decoded, turned as its EXIF says. What is behind transparency is white, as for processors of transformers."""
    from PIL import ImageOps

    width, height = image.size
    what = f"a picture of {width} x {height} pixels{f' ({image.format})' if image.format else ''}"
    if not 0 < width * height <= MAX_PIXELS:
        raise InvalidParams(f"{what} is too large: send one of 1 to {MAX_PIXELS} pixels")
    try:
        return on_white(ImageOps.exif_transpose(image))
    except Exception as error:  # decoders raise whatever the damage leads to
        raise InvalidParams(f"{what} cannot be decoded ({short(str(error))}); {_ALLOWED}") from None


def on_white(image: Image.Image) -> Image.Image:
    """In colours; what is behind transparency is white."""
    from PIL import Image

    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    paper = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(paper, image.convert("RGBA")).convert("RGB")


def has_pillow() -> bool:
    """Whether pictures can be decoded here."""
    return importlib.util.find_spec("PIL") is not None


def _require_pillow() -> None:
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise InvalidParams("pictures need Pillow, which is not installed: pip install 'albireo[images]'") from None
