"""Pictures that are awkward to prepare: of odd sizes, of one pixel, long, and in other modes than RGB."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

#: Width, height and mode.
SIZES = {
    "one pixel": (1, 1, "RGB"),
    "small": (17, 31, "RGB"),
    "a tile": (64, 64, "RGB"),
    "a tile and one": (65, 64, "RGB"),
    "ordinary": (640, 480, "RGB"),
    "upright": (300, 401, "RGB"),
    "wide": (4000, 50, "RGB"),
    "tall": (50, 4000, "RGB"),
    "thin": (3, 500, "RGB"),
    "grey": (90, 61, "L"),
    "black and white": (61, 90, "1"),
    "of a palette": (128, 33, "P"),
    "transparent": (75, 100, "RGBA"),
    "grey and transparent": (100, 75, "LA"),
}
#: Too long for families that keep proportions.
LONG = {"a line": (2000, 3, "RGB"), "an upright line": (3, 2000, "RGB")}
_CHANNELS = {"RGB": 3, "RGBA": 4, "L": 1, "LA": 2, "1": 1, "P": 3}


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    """Noise on a gradient: neighbours differ, and places differ."""
    numbers = np.random.default_rng(width * 7919 + height)
    slope = np.add.outer(np.linspace(0, 128, height), np.linspace(0, 64, width))[..., None]
    colours = (slope + numbers.integers(0, 64, (height, width, _CHANNELS[mode]))).astype(np.uint8)
    whole = Image.fromarray(colours[..., 0] if colours.shape[2] == 1 else colours)
    return whole.quantize(32) if mode == "P" else whole.convert(mode)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()
