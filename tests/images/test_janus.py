"""Pictures of Janus and DeepSeek-VL against transformers' processors, bit for bit."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture

pytest.importorskip("transformers")

from transformers.models.deepseek_vl.image_processing_pil_deepseek_vl import DeepseekVLImageProcessorPil
from transformers.models.deepseek_vl.processing_deepseek_vl import DeepseekVLProcessor
from transformers.models.janus.image_processing_pil_janus import JanusImageProcessorPil
from transformers.models.janus.processing_janus import JanusProcessor

from in_turn import in_turn

_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
THEIRS: dict[str, tuple[Any, Any]] = {
    "janus": (JanusImageProcessorPil, JanusProcessor),
    "deepseek_vl": (DeepseekVLImageProcessorPil, DeepseekVLProcessor),
}
#: Of the image processor, and patches of the tower.
SETTINGS: dict[str, tuple[dict[str, Any], int]] = {
    "defaults": ({}, 16),
    "as published": ({"size": {"height": 384, "width": 384}, "min_size": 14, **_HALF}, 16),
    "smaller": ({"size": {"height": 50, "width": 50}, "min_size": 3, "resample": 2}, 10),
}


@in_turn(("name", THEIRS), ("settings", SETTINGS), ("size", (*SIZES, *LONG)))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, name: str, settings: str, size: str) -> None:
    (held, patch), (of_image, processor) = SETTINGS[settings], THEIRS[name]
    theirs, image = of_image(**held), picture(*(SIZES | LONG)[size])
    found = theirs([as_image(image)])
    side = held.get("size", {}).get("height", 384)
    named = SimpleNamespace(
        image_token="<image_placeholder>",
        image_start_token="<begin_of_image>",
        image_end_token="<end_of_image>",
        num_image_tokens=(side // patch) ** 2,
    )
    text = processor.replace_image_token(named, found, 0)
    config = {"model_type": name, "vision_config": {"image_size": side, "patch_size": patch}}
    ours = opened(tmp_path, config, held, {"num_image_tokens": named.num_image_tokens})
    assert_prepared(ours, ours.prepare(as_image(image)), [np.asarray(found["pixel_values"][0])], text)


@pytest.mark.parametrize("name", THEIRS)
def test_what_transformers_saves_is_read(tmp_path: Path, name: str) -> None:
    THEIRS[name][0](**SETTINGS["as published"][0]).save_pretrained(tmp_path)
    ours, plain = opened(tmp_path, {"model_type": name}), opened(tmp_path / "plain", {"model_type": name}, _HALF)
    image = picture(90, 200)
    assert (ours.prepare(image).tiles[0] == plain.prepare(image).tiles[0]).all()
    assert (ours.placeholder, ours.largest_tile()) == ("<image_placeholder>", (384, 384))


def test_what_stands_before_a_chat_is_its_processors(tmp_path: Path) -> None:
    module = sys.modules[JanusProcessor.__module__]
    assert opened(tmp_path, {"model_type": "janus"}, {}, {}).opening == ""
    asked = opened(tmp_path, {"model_type": "janus"}, {}, {"use_default_system_prompt": True})
    assert asked.opening == module.DEFAULT_SYSTEM_PROMPT


@pytest.mark.parametrize(
    ("settings", "processor", "told"),
    [
        ({"size": {"height": 384, "width": 400}}, {}, "tiles are squares"),
        ({"size": {"height": 400, "width": 400}}, {}, "size is 400, but .* has image_size=384"),
        ({"do_pad": False}, {}, "do_pad=False is not supported; the tower reads squares"),
        ({"image_processor_type": "SiglipImageProcessor"}, {}, "for this model: JanusImageProcessor"),
        ({"image_mean": [0.5, 0.5, 2.0]}, {}, "image_mean=.* must be"),
        ({}, {"num_image_tokens": 100}, "num_image_tokens is 100, but .* gives 576 rows"),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    tmp_path: Path, settings: dict[str, Any], processor: dict[str, Any], told: str
) -> None:
    config = {"model_type": "janus", "vision_config": {"image_size": 384}}
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, config, settings, processor)
