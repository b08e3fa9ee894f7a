"""The pictures of Kimi-VL against what its authors' code says, step by step: transformers has no class of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture
from images.published_assistants import ASSISTANTS

CONFIG = {"model_type": "kimi_vl", "vision_config": {"patch_size": 14, "merge_kernel_size": [2, 2]}}
#: As its authors publish it.
FIRST = ASSISTANTS["Kimi-VL-A3B"][1]
SETTINGS: dict[str, dict[str, Any]] = {
    "published": {},
    "few": {"in_token_limit": 60},
    "colours": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7], "in_token_limit": 100},
    "merged by four": {"merge_kernel_size": [4, 4], "in_token_limit": 200},
}
PICTURES = {**SIZES, "large": (1500, 1100, "RGB"), "between": (700, 600, "RGB")}


def by_its_authors(settings: dict[str, Any], image: Image.Image) -> tuple[list[np.ndarray], str]:
    """float32 [3, height, width] of the tile, and the text."""
    patch, limit, merge = 14, settings["in_token_limit"], settings.get("merge_kernel_size", [2, 2])[0]
    wide, tall = image.size
    if (wide // patch) * (tall // patch) > limit:
        scale = math.sqrt(limit / ((wide // patch) * (tall // patch)))
        image = image.resize((int(wide * scale), int(tall * scale)), Image.Resampling.BICUBIC)
    step = patch * merge
    padded = Image.new("RGB", tuple(side + (step - side % step) % step for side in image.size), (0, 0, 0))
    padded.paste(image, (0, 0))
    colours = np.asarray(padded, np.float32).transpose(2, 0, 1) / np.float32(255)
    mean, std = (np.array(settings[key], np.float32)[:, None, None] for key in ("image_mean", "image_std"))
    count = (padded.width // patch) * (padded.height // patch) // merge**2
    return [(colours - mean) / std], "<|media_pad|>" * count


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", PICTURES)
def test_tiles_and_text_are_those_of_its_authors(tmp_path: Path, settings: str, name: str) -> None:
    image, held = as_image(picture(*PICTURES[name])), {**FIRST, **SETTINGS[settings]}
    side = held.get("merge_kernel_size", [2, 2])
    ours = opened(tmp_path, {**CONFIG, "vision_config": {"patch_size": 14, "merge_kernel_size": side}}, held)
    prepared = ours.prepare(image)
    assert_prepared(ours, prepared, *by_its_authors(held, image))
    assert prepared.grid is None and ours.rows(*prepared.tiles[0].shape[:2]) <= ours.rows(*ours.largest_tile())


def test_none_is_larger_than_the_largest(tmp_path: Path) -> None:
    for limit in (60, 4096, 16384):
        ours: Any = opened(tmp_path, CONFIG, {**FIRST, "in_token_limit": limit})
        largest = ours.rows(*ours.largest_tile())
        for sides in np.random.default_rng(0).integers(1, 9000, (500, 2)).tolist():
            tall, wide = (-(-side // 28) * 28 for side in ours.size_of(*sides))
            assert max(tall, wide) // 14 > 511 or ours.rows(tall, wide) <= largest, sides


def test_a_picture_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match=r"too long in one direction: .* at most 511 patches"):
        opened(tmp_path, CONFIG, FIRST).prepare(as_image(picture(8000, 50)))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patch_size": 16}, "patch_size is 16, but .* has patch_size=14"),
        ({"merge_kernel_size": [1, 1]}, r"merge_kernel_size=\[1, 1\] must be that of config.json"),
        ({"merge_kernel_size": [2, 1]}, r"merge_kernel_size=\[2, 1\] is not supported"),
        ({"pad_input": False}, "pad_input=False is not supported"),
        ({"image_processor_type": "Kimi_K25ImageProcessor"}, "for this model: KimiVLImageProcessor"),
        ({"max_patches": 60}, "'max_patches': 60"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, CONFIG, {**FIRST, **settings})
