"""Mistral3's pictures against transformers' Pixtral, bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture
from images.without_torchvision import imported

pytest.importorskip("transformers")

from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from in_turn import in_turn

PixtralProcessor = imported("transformers.models.pixtral.processing_pixtral").PixtralProcessor

TOKENS = {"image_token": "[IMG]", "image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]"}
#: Of the image processor, and of the processor.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults": ({}, {}),
    "of a checkpoint": (
        {"patch_size": 14, "size": {"longest_edge": 1540}},
        {"patch_size": 14, "spatial_merge_size": 2, **TOKENS},
    ),
    "small": (
        {"patch_size": {"height": 8, "width": 8}, "size": {"longest_edge": 200}, "image_std": [0.1, 0.2, 0.3]},
        {"patch_size": 8, "spatial_merge_size": 3},
    ),
    "other tokens": ({"size": {"longest_edge": 333}}, {key: f"<{key}>" for key in TOKENS}),
}


def by_transformers(image: Any, settings: str) -> tuple[np.ndarray, str]:
    """float32 [3, height, width] and the text."""
    held, processor = SETTINGS[settings]
    patch, merge = processor.get("patch_size", 16), processor.get("spatial_merge_size", 1)
    found = PixtralImageProcessorPil(**held)([image], patch_size=patch * merge)
    tokens = {key: processor.get(key, token) for key, token in TOKENS.items()}
    whole = SimpleNamespace(patch_size=patch, spatial_merge_size=merge, **tokens)
    return np.asarray(found["pixel_values"][0]), PixtralProcessor.replace_image_token(whole, found, 0)


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    held, processor = SETTINGS[settings]
    config = {"model_type": "mistral3", "vision_config": {"patch_size": processor.get("patch_size", 16)}}
    config["spatial_merge_size"] = processor.get("spatial_merge_size", 1)
    image = picture(*SIZES[name])
    expected, text = by_transformers(image, settings)
    ours = opened(tmp_path, config, held, processor)
    assert_prepared(ours, ours.prepare(as_image(image)), [expected], text)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    PixtralImageProcessorPil(**SETTINGS["of a checkpoint"][0]).save_pretrained(tmp_path)
    ours = opened(tmp_path, {"model_type": "mistral3"}, processor=SETTINGS["of a checkpoint"][1])
    image = picture(90, 200)
    expected, text = by_transformers(image, "of a checkpoint")
    assert_prepared(ours, ours.prepare(image), [expected], text)


def test_pictures_of_a_llava_with_that_tower_are_the_same(tmp_path: Path) -> None:
    """Pixtral 12B in transformers' format, whose rows are patches."""
    config = {"model_type": "llava", "vision_config": {"model_type": "pixtral", "patch_size": 16}}
    ours, image = opened(tmp_path, config, {}, {"patch_size": 16, **TOKENS}), picture(90, 200)
    expected, text = by_transformers(image, "defaults")
    assert_prepared(ours, ours.prepare(image), [expected], text)


def test_names_of_the_prompt(tmp_path: Path) -> None:
    ours = opened(tmp_path, {"model_type": "mistral3"}, {}, {"image_token": "<picture>"})
    assert (ours.image_token, ours.placeholder) == ("<picture>", "<picture>")


@pytest.mark.parametrize(("width", "height"), [(3, 2000), (1100, 1)])
def test_pictures_too_long_are_refused_where_nothing_is_left_of_a_side(tmp_path: Path, width: int, height: int) -> None:
    ours = opened(tmp_path, {"model_type": "mistral3"}, {"size": {"longest_edge": 600}})
    with pytest.raises(ValueError):
        PixtralImageProcessorPil(size={"longest_edge": 600})([picture(width, height)])
    with pytest.raises(InvalidParams, match=f"{width} x {height} pixels is too long in one direction"):
        ours.prepare(picture(width, height))


def test_a_tower_of_another_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"patch_size is 16, but .*vision_config has patch_size=14"):
        opened(tmp_path, {"model_type": "mistral3", "vision_config": {"patch_size": 14}}, {})
    with pytest.raises(ModelError, match=r"spatial_merge_size is 1, but .* has spatial_merge_size=2"):
        opened(tmp_path, {"model_type": "mistral3", "spatial_merge_size": 2}, {})


@pytest.mark.parametrize("settings", [{"do_center_crop": True}, {"size": {"height": 9, "width": 9}}, {"new": 1}])
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises((UnsupportedModel, ModelError), match=r"do_center_crop|longest_edge|new"):
        opened(tmp_path, {"model_type": "mistral3"}, settings)
