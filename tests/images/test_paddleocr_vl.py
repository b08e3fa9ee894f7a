"""The processor of PaddleOCR-VL against transformers', bit for bit: its patches put together again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture

pytest.importorskip("transformers")

from transformers.models.paddleocr_vl.image_processing_pil_paddleocr_vl import PaddleOCRVLImageProcessorPil
from transformers.models.paddleocr_vl.processing_paddleocr_vl import PaddleOCRVLProcessor

from in_turn import in_turn

_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "published": {"min_pixels": 147384, "max_pixels": 2822400, "temporal_patch_size": 1, **_HALF},
    "few pixels": {"size": {"shortest_edge": 3136, "longest_edge": 50_000}},
    "merged by three": {"merge_size": 3, "patch_size": 8, "resample": 2},
}
#: What config.json says of videos, which are not read.
TOWER = {"temporal_patch_size": 2, "tokens_per_second": 2}


def put_beside(tmp_path: Path, settings: str, image: Any) -> None:
    held = SETTINGS[settings]
    theirs = PaddleOCRVLImageProcessorPil(**held)
    found = theirs([image])
    ((num_frames, tall, wide),) = np.asarray(found["image_grid_thw"])
    assert num_frames == 1
    patches = np.asarray(found["pixel_values"]).reshape(tall, wide, 3, theirs.patch_size, theirs.patch_size)
    whole = patches.transpose(2, 0, 3, 1, 4).reshape(3, tall * theirs.patch_size, wide * theirs.patch_size)
    named = SimpleNamespace(image_processor=theirs, image_token="<|IMAGE_PLACEHOLDER|>")
    text = PaddleOCRVLProcessor.replace_image_token(named, found, 0)
    ours = opened(tmp_path, {"model_type": "paddleocr_vl", "vision_config": TOWER}, held)
    prepared = ours.prepare(as_image(image))
    assert_prepared(ours, prepared, [whole], text)
    assert prepared.grid == (tall // theirs.merge_size, wide // theirs.merge_size)


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    put_beside(tmp_path, settings, picture(*SIZES[name]))


@pytest.mark.parametrize(
    ("width", "height"), [(1, 200), (3, 29), (27, 27), (11, 2200), (14, 2800), (2800, 14), (29, 3), (28, 28), (28, 27)]
)
def test_pictures_at_the_edge_are_those_of_transformers(tmp_path: Path, width: int, height: int) -> None:
    """Smaller than what becomes a row, as long as is allowed, or both."""
    put_beside(tmp_path, "defaults", picture(width, height))


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    PaddleOCRVLImageProcessorPil(**SETTINGS["published"]).save_pretrained(tmp_path)
    ours = opened(tmp_path, {"model_type": "paddleocr_vl"})
    theirs = opened(tmp_path / "plain", {"model_type": "paddleocr_vl"}, SETTINGS["published"])
    image = picture(90, 200)
    assert (ours.prepare(image).tiles[0] == theirs.prepare(image).tiles[0]).all()
    assert (ours.image_token, ours.placeholder) == ("<|IMAGE_PLACEHOLDER|>", "<|IMAGE_PLACEHOLDER|>")


@pytest.mark.parametrize(("width", "height"), [(1, 201), (3, 2000), (2000, 3)])
def test_pictures_that_transformers_refuses_are_refused(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="aspect ratio"):
        PaddleOCRVLImageProcessorPil()([picture(width, height)])
    with pytest.raises(InvalidParams, match=f"{width} x {height} pixels is too long in one direction: at most 200 to"):
        opened(tmp_path, {"model_type": "paddleocr_vl"}, {}).prepare(picture(width, height))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "for this model: PaddleOCRVLImageProcessor"),
        ({"temporal_patch_size": 2}, "temporal_patch_size=2 is not supported; the tower reads patches of one frame"),
        ({"do_normalize": False}, "'do_normalize': False"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        opened(tmp_path, {"model_type": "paddleocr_vl"}, settings)
