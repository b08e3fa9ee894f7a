"""Gemma4's pictures against transformers' processor, bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.models.vision.patches import patch_rows
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from images.without_torchvision import imported

pytest.importorskip("transformers")

from transformers.models.gemma4.image_processing_pil_gemma4 import Gemma4ImageProcessorPil

from in_turn import in_turn

unified_images = imported("transformers.models.gemma4_unified.image_processing_gemma4_unified")
Gemma4Processor = imported("transformers.models.gemma4.processing_gemma4").Gemma4Processor

PICTURES = {**SIZES, **LONG, "as large as it may be": (672, 960, "RGB"), "nearly so": (671, 961, "RGB")}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "few": {"max_soft_tokens": 70, "patch_size": 8, "pooling_kernel_size": 2},
    "many": {"max_soft_tokens": 1120, "resample": 2},
    "normed": {
        "max_soft_tokens": 70,
        "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.5, 0.6, 0.7],
    },
    "not normed": {"max_soft_tokens": 70, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.5, 0.6, 0.7]},
}
#: As published.
CHECKPOINT = {
    "audio_ms_per_token": 40,
    "audio_seq_length": 750,
    "feature_extractor": {"feature_extractor_type": "Gemma4AudioFeatureExtractor", "sampling_rate": 16000},
    "image_processor": {
        "do_convert_rgb": True,
        "do_normalize": False,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.0, 0.0, 0.0],
        "image_processor_type": "Gemma4ImageProcessor",
        "image_seq_length": 280,
        "image_std": [1.0, 1.0, 1.0],
        "max_soft_tokens": 280,
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "resample": 3,
        "rescale_factor": 1 / 255,
    },
    "image_seq_length": 280,
    "processor_class": "Gemma4Processor",
    "video_processor": {"max_soft_tokens": 70, "video_processor_type": "Gemma4VideoProcessor"},
}


def config(held: dict[str, Any]) -> dict[str, Any]:
    tower = {"patch_size": held.get("patch_size", 16), "pooling_kernel_size": held.get("pooling_kernel_size", 3)}
    return {"model_type": "gemma4", "vision_config": tower}


def by_transformers(image: Any, held: dict[str, Any]) -> tuple[np.ndarray, str]:
    """float32 [3, height, width], put together of patches by their places; and the text."""
    found = Gemma4ImageProcessorPil(**held)([image])
    places = np.asarray(found["image_position_ids"][0])
    is_real = (places >= 0).all(axis=1)
    (columns, rows), size = places[is_real].max(axis=0) + 1, held.get("patch_size", 16)
    patches = np.asarray(found["pixel_values"][0])[is_real]
    tile = np.empty((rows, size, columns, size, 3), patches.dtype)
    for (column, row), patch in zip(places[is_real], patches, strict=True):
        tile[row, :, column] = patch.reshape(size, size, 3)
    tokens = SimpleNamespace(boi_token="<|image>", eoi_token="<image|>", image_token="<|image|>")
    text = Gemma4Processor.replace_image_token(tokens, found, 0)
    return np.moveaxis(tile.reshape(rows * size, columns * size, 3), -1, 0), text


@in_turn(("settings", SETTINGS), ("name", PICTURES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    held, image = SETTINGS[settings], picture(*PICTURES[name])
    # what it is converted to first is one of its own steps
    expected, text = by_transformers(as_image(image), held)
    ours = opened(tmp_path, config(held), held)
    prepared = ours.prepare(as_image(image))
    assert_prepared(ours, prepared, [expected], text)
    height, width = ours.largest_tile()
    assert ours.rows(height, width) == held.get("max_soft_tokens", 280) >= ours.rows(*prepared.tiles[0].shape[:2])


def test_what_is_published_is_read(tmp_path: Path) -> None:
    ours = opened(tmp_path, config({}), processor=CHECKPOINT)
    image = picture(90, 200)
    expected, text = by_transformers(image, {})
    assert_prepared(ours, ours.prepare(image), [expected], text)
    assert (ours.image_token, ours.placeholder) == ("<|image|>", "<|image|>")


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    held = SETTINGS["few"]
    Gemma4ImageProcessorPil(**held).save_pretrained(tmp_path)
    ours, image = opened(tmp_path, config(held)), picture(90, 200)
    expected, text = by_transformers(image, held)
    assert_prepared(ours, ours.prepare(image), [expected], text)


@pytest.mark.parametrize("name", ["ordinary", "wide", "upright", "grey and transparent"])
def test_patches_of_12b_are_those_of_transformers(tmp_path: Path, name: str) -> None:
    """Of its processor the last step is its own, which puts 3 x 3 patches together; others need torchvision."""
    held = {"max_soft_tokens": 70}
    torch, image = pytest.importorskip("torch"), as_image(picture(*PICTURES[name]))
    unified = {"model_type": "gemma4_unified", "vision_config": {"patch_size": 16, "pooling_kernel_size": 3}}
    ours = opened(tmp_path, unified, {**held, "image_processor_type": "Gemma4UnifiedImageProcessor"})
    (tile,) = ours.prepare(image).tiles
    found = Gemma4ImageProcessorPil(**held)([image])
    places = torch.tensor(np.asarray(found["image_position_ids"]))
    is_real = (places >= 0).all(dim=-1)
    patches, places = torch.tensor(np.asarray(found["pixel_values"]))[is_real][None], places[is_real][None]
    merged, wanted = unified_images.patches_merge(patches, places, patches.shape[1] // 9)
    mine = patch_rows(ours.normalized(tile), 48, is_channel_last=True)
    grid = [side // 48 for side in tile.shape[:2]]
    assert np.array_equal(mine, merged[0].numpy())
    assert np.indices(grid)[::-1].reshape(2, -1).T.tolist() == wanted[0].tolist()


def test_settings_of_12b(tmp_path: Path) -> None:
    """Its table has places of what becomes a row; its class is its own."""
    unified = {"model_type": "gemma4_unified", "vision_config": {"mm_posemb_size": 279}}
    with pytest.raises(ModelError, match=r"may be 280 patches long, but .* has mm_posemb_size=279"):
        opened(tmp_path, unified, {})
    with pytest.raises(UnsupportedModel, match=r"Gemma4ImageProcessor.*for this model: Gemma4UnifiedImageProcessor"):
        opened(tmp_path, {"model_type": "gemma4_unified"}, {"image_processor_type": "Gemma4ImageProcessor"})


@pytest.mark.parametrize("most", [1, 2, 5])
def test_no_picture_has_more_rows_than_it_may(tmp_path: Path, most: int) -> None:
    """Budgets that transformers refuses: tiny models have them."""
    ours = opened(tmp_path, config({}), {"max_soft_tokens": most})
    for width, height in ((1, 1), (7, 9), (9, 7), (1, 300), (300, 1), (40, 100)):
        (tile,) = ours.prepare(picture(width, height)).tiles
        assert 1 <= ours.rows(*tile.shape[:2]) <= most


@pytest.mark.parametrize(
    ("held", "tower", "told"),
    [
        ({"patch_size": 14}, {"patch_size": 16}, "patch_size is 14, but .*vision_config has patch_size=16"),
        ({}, {"pooling_kernel_size": 2}, "pooling_kernel_size is 3, but .*vision_config has pooling_kernel_size=2"),
        ({}, {"position_embedding_size": 800}, "may be 840 patches long, but .*has position_embedding_size=800"),
        ({"max_soft_tokens": 0}, {}, "max_soft_tokens=0 must be"),
    ],
)
def test_a_tower_of_another_checkpoint_is_refused(
    tmp_path: Path, held: dict[str, Any], tower: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        opened(tmp_path, {"model_type": "gemma4", "vision_config": tower}, held)


@pytest.mark.parametrize("settings", [{"do_rescale": False}, {"do_resize": False}, {"pan_and_scan": 1}])
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedModel, match=next(iter(settings))):
        opened(tmp_path, {"model_type": "gemma4"}, settings)
