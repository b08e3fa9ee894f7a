"""The processor of ERNIE 4.5 VL against transformers', bit for bit: its patches put together again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture
from images.test_qwen2_vl import put_together

pytest.importorskip("transformers")

from transformers.models.ernie4_5_vl_moe.image_processing_pil_ernie4_5_vl_moe import Ernie4_5_VLMoeImageProcessorPil
from transformers.models.ernie4_5_vl_moe.processing_ernie4_5_vl_moe import Ernie4_5_VLMoeProcessor

from in_turn import in_turn

CONFIG: dict[str, Any] = {"model_type": "ernie4_5_vl_moe", "vision_config": {"patch_size": 14, "spatial_merge_size": 2}}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "few pixels": {"size": {"shortest_edge": 3136, "longest_edge": 50_000}},
    "linear": {"size": {"shortest_edge": 3136, "longest_edge": 80_000}, "resample": 2, "temporal_patch_size": 1},
}


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    theirs, image = Ernie4_5_VLMoeImageProcessorPil(**SETTINGS[settings]), picture(*SIZES[name])
    found = theirs([image])
    named = SimpleNamespace(image_processor=theirs, image_token="<|IMAGE_PLACEHOLDER|>")
    text = Ernie4_5_VLMoeProcessor.replace_image_token(named, found, 0)
    ours = opened(tmp_path, CONFIG, SETTINGS[settings])
    assert_prepared(ours, ours.prepare(as_image(image)), [put_together(found, theirs)], text)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    theirs, image = Ernie4_5_VLMoeImageProcessorPil(**SETTINGS["few pixels"]), picture(90, 200)
    theirs.save_pretrained(tmp_path)
    found, ours = theirs([image]), opened(tmp_path, CONFIG)
    tokens = "<|IMAGE_PLACEHOLDER|>" * (len(found["pixel_values"]) // 4)
    assert_prepared(ours, ours.prepare(image), [put_together(found, theirs)], tokens)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"merge_size": 3}, "merge_size is 3, but .*spatial_merge_size=2"),
        ({"min_pixels": 3136, "max_pixels": 80_000}, "'max_pixels': 80000"),
        ({"temporal_patch_size": 2}, "temporal_patch_size=2 is not supported; .* of one frame"),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "for this model: Ernie4_5_VLMoeImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((UnsupportedModel, ModelError), match=told):
        opened(tmp_path, CONFIG, settings)
