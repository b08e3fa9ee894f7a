"""The processor of HunyuanOCR against transformers', bit for bit: its patches put together again."""

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

from transformers.models.hunyuan_vl.image_processing_pil_hunyuan_vl import HunYuanVLImageProcessorPil
from transformers.models.hunyuan_vl.processing_hunyuan_vl import HunYuanVLProcessor

from in_turn import in_turn

CONFIG = {"model_type": "hunyuan_vl", "vision_config": {"patch_size": 16}}
TOKEN = "<｜hy_place▁holder▁no▁102｜>"
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    # another filter than the one that it is resized with
    "published": {"min_pixels": 262144, "max_pixels": 4194304, "resample": 1, "temporal_patch_size": 1},
    "few pixels": {"size": {"shortest_edge": 3136, "longest_edge": 50_000}},
}


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    held, image = SETTINGS[settings], picture(*SIZES[name])
    theirs = HunYuanVLImageProcessorPil(**held)
    found = theirs([image])
    ((num_frames, tall, wide),) = np.asarray(found["image_grid_thw"])
    assert num_frames == 1
    patches = np.asarray(found["pixel_values"]).reshape(tall, wide, 3, 16, 16)
    whole = patches.transpose(2, 0, 3, 1, 4).reshape(3, tall * 16, wide * 16)
    named = SimpleNamespace(image_processor=theirs, image_token=TOKEN, cat_extra_token=True)
    text = HunYuanVLProcessor.replace_image_token(named, found, 0)
    ours = opened(tmp_path, CONFIG, held)
    prepared = ours.prepare(as_image(image))
    assert_prepared(ours, prepared, [whole], text)
    assert prepared.grid == (tall // 2, wide // 2 + 1)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    HunYuanVLImageProcessorPil(**SETTINGS["published"]).save_pretrained(tmp_path)
    ours, theirs = opened(tmp_path, CONFIG), opened(tmp_path / "plain", CONFIG, SETTINGS["published"])
    image = picture(90, 200)
    assert (ours.prepare(image).tiles[0] == theirs.prepare(image).tiles[0]).all()
    assert (ours.image_token, ours.placeholder) == (TOKEN, TOKEN)


def test_pictures_that_transformers_refuses_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="aspect ratio"):
        HunYuanVLImageProcessorPil()([picture(3, 2000)])
    with pytest.raises(InvalidParams, match="3 x 2000 pixels is too long in one direction: at most 200 to"):
        opened(tmp_path, CONFIG, {}).prepare(picture(3, 2000))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "for this model: HunYuanVLImageProcessor"),
        ({"temporal_patch_size": 2}, "temporal_patch_size=2 is not supported; the tower reads patches of one frame"),
        ({"spatial_patch_size": 2}, "'spatial_patch_size': 2"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UnsupportedModel, match=words):
        opened(tmp_path, CONFIG, settings)
