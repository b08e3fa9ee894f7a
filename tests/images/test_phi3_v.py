"""The pictures of Phi-3-vision against what its authors' code says, step by step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.models.settings.text_part import inner
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture
from images.published_assistants import ASSISTANTS

CONFIG, FIRST = ASSISTANTS["Phi-3.5-vision"][:2]
PICTURES = {**SIZES, "a block": (336, 336, "RGB"), "large": (1500, 1100, "RGB"), "upright": (331, 1700, "RGB")}


def by_its_authors(settings: dict[str, Any], image: Image.Image) -> tuple[list[np.ndarray], str]:
    """float32 [3, height, width] of the picture in its blocks; and the text."""
    is_upright = image.width < image.height
    if is_upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    ratio = image.width / image.height
    scale = next(s for s in range(1, 99) if (s + 1) * math.ceil((s + 1) / ratio) > settings["num_crops"])
    image = image.resize((scale * 336, int(scale * 336 / ratio)), Image.Resampling.BILINEAR)
    missing = math.ceil(image.height / 336) * 336 - image.height
    above = int(missing / 2)
    image = ImageOps.expand(image, (0, above, 0, missing - above), (255, 255, 255))
    if is_upright:
        image = image.transpose(Image.Transpose.TRANSPOSE)
    high, wide = image.height // 336, image.width // 336
    less, by = (np.array(settings[key], np.float32)[:, None, None] for key in ("image_mean", "image_std"))
    tile = (np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255) - less) / by
    return [tile], "<|image|>" * ((high * wide + 1) * 144 + 1 + (high + 1) * 12)


@pytest.mark.parametrize("num_crops", [4, 16])
@pytest.mark.parametrize("name", PICTURES)
def test_tiles_and_text_are_those_of_its_authors(tmp_path: Path, name: str, num_crops: int) -> None:
    image, held = as_image(picture(*PICTURES[name])), {**FIRST, "num_crops": num_crops}
    ours = opened(tmp_path, inner(CONFIG), held)
    prepared = ours.prepare(image)
    assert_prepared(ours, prepared, *by_its_authors(held, image))
    assert ours.rows(*prepared.tiles[0].shape[:2]) <= ours.rows(*ours.largest_tile())


def test_prompts_that_spell_their_pictures(tmp_path: Path) -> None:
    ours: Any = opened(tmp_path, inner(CONFIG), FIRST)
    assert ours.marked("<|user|>\n<|image_1|>\nor <|image_2|>?") == "<|user|>\n<|image|>\nor <|image|>?"
    with pytest.raises(InvalidParams, match="pictures are numbered 2, 1; number them from 1 on"):
        ours.marked("<|image_2|><|image_1|>")
    with pytest.raises(InvalidParams) as error:
        ours.marked("<|image_7|>" * 10_000)
    assert "7, 7, …; number them" in str(error.value) and len(str(error.value)) < 200


def test_numbers_of_thousands_of_digits_are_letters(tmp_path: Path) -> None:
    """Python refuses to read them; nobody has as many pictures."""
    ours: Any = opened(tmp_path, inner(CONFIG), FIRST)
    text = f"<|image_1|><|image_{'1' * 5000}|>"
    assert ours.marked(text) == f"<|image|><|image_{'1' * 5000}|>"


def test_too_long_in_one_direction(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="1 x 6000 pixels would be 5376 long and less than one pixel"):
        opened(tmp_path, inner(CONFIG), FIRST).prepare(picture(1, 6000))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_img_tokens": 576}, "num_img_tokens is 576, but .* gives 144 rows"),
        ({"resample": 3}, "resample=3 is not supported; supported: 2"),
        ({"num_crops": 0}, "num_crops=0 must be"),
        ({"do_resize": False}, "'do_resize': False"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, inner(CONFIG), {**FIRST, **changes})
