"""The pictures of DeepSeek-OCR and DeepSeek-OCR 2 against what their authors' code says, step by step; the grid against
transformers, which has it of Unlimited OCR."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.models.settings.text_part import inner
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from images.published_assistants import ASSISTANTS
from images.without_torchvision import imported

pytest.importorskip("transformers")
pytest.importorskip("transformers.image_processing_backends")
PICTURES = {
    **SIZES,
    **LONG,
    "a part": (640, 640, "RGB"),
    "a line more": (640, 641, "RGB"),
    "large": (1500, 1100, "RGB"),
    "lost in the whole": (2, 5000, "RGB"),
    "and lying": (5000, 2, "RGB"),
    "odd": (1000, 333, "RGB"),
    "odd and upright": (331, 999, "RGB"),
}
CONFIG, FIRST = ASSISTANTS["DeepSeek-OCR"][0], ASSISTANTS["DeepSeek-OCR"][2]
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "colours": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7]},
}
nearest = imported("transformers.models.unlimited_ocr.image_processing_unlimited_ocr").get_optimal_tiled_canvas


def by_its_authors(
    settings: dict[str, Any], image: Image.Image, side: int = 640, behind: int = 1
) -> tuple[list[np.ndarray], str]:
    """float32 [3, height, width] of parts side by side, where there are any, and of the whole; and the text.

    Args: side: of a part. behind: rows behind each line."""
    views, rows, of_part = [], 16 * (16 + behind) + 1, side // 64
    if image.width > side or image.height > side:
        columns, lines = nearest((image.height, image.width), (side, side), 2, 6)
        views.append(image.resize((side * columns, side * lines)))
        rows += lines * of_part * (columns * of_part + behind)
    mean, std = settings["image_mean"], settings["image_std"]
    views.append(ImageOps.pad(image, (1024, 1024), color=tuple(int(x * 255) for x in mean)))
    less, by = (np.array(each, np.float32)[:, None, None] for each in (mean, std))
    tiles = [(np.asarray(view, np.float32).transpose(2, 0, 1) / np.float32(255) - less) / by for view in views]
    return tiles, "<image>" * rows


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", PICTURES)
def test_tiles_and_text_are_those_of_its_authors(tmp_path: Path, settings: str, name: str) -> None:
    image, held = as_image(picture(*PICTURES[name])), {**FIRST, **SETTINGS[settings]}
    ours = opened(tmp_path, inner(CONFIG), None, held)
    prepared = ours.prepare(image)
    assert_prepared(ours, prepared, *by_its_authors(held, image))
    assert prepared.grid is None
    assert max(ours.rows(*tile.shape[:2]) for tile in prepared.tiles) <= ours.rows(*ours.largest_tile())


@pytest.mark.parametrize("name", ["a part", "large", "odd and upright", "two of three"])
def test_pictures_of_the_second_one(tmp_path: Path, name: str) -> None:
    size = {**PICTURES, "two of three": (768, 700, "RGB")}[name]
    image = as_image(picture(*size))
    ours = opened(tmp_path, inner(ASSISTANTS["DeepSeek-OCR 2"][0]), None, FIRST)
    assert_prepared(ours, ours.prepare(image), *by_its_authors(FIRST, image, 768, 0))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patch_size": 14}, "patch_size=14 is not supported; supported: 16"),
        ({"candidate_resolutions": [[1280, 1280]]}, "candidate_resolutions=.* the one of config.json, 1024 x 1024"),
        ({"normalize": False}, "'normalize': False"),
        ({"downsample_ratio": 2}, "'downsample_ratio': 2"),
        ({"image_token": "<img>"}, "'image_token': '<img>'"),
        ({"image_mean": [1.5, 0.5, 0.5]}, "image_mean"),
        ({"max_crops": 9}, "'max_crops': 9"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, inner(CONFIG), None, {**FIRST, **settings})
