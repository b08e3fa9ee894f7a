"""The processor of VideoLLaMA 3 against transformers', bit for bit: its patches put together again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture

pytest.importorskip("transformers")

from transformers.models.video_llama_3.image_processing_pil_video_llama_3 import VideoLlama3ImageProcessorPil
from transformers.models.video_llama_3.processing_video_llama_3 import VideoLlama3Processor

from in_turn import in_turn

SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "few pixels": {"size": {"shortest_edge": 3136, "longest_edge": 50_000}},
    "as they were once said": {"min_pixels": 3136, "max_pixels": 80_000, "patch_size": 8, "resample": 2},
}


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    theirs, image = VideoLlama3ImageProcessorPil(**SETTINGS[settings]), picture(*SIZES[name])
    found = theirs([image])
    ((num_frames, tall, wide),) = np.asarray(found["image_grid_thw"])
    assert num_frames == 1
    patches = np.asarray(found["pixel_values"]).reshape(tall, wide, 3, theirs.patch_size, theirs.patch_size)
    whole = patches.transpose(2, 0, 3, 1, 4).reshape(3, tall * theirs.patch_size, wide * theirs.patch_size)
    named = SimpleNamespace(image_processor=theirs, image_token="<|image_pad|>")
    text = VideoLlama3Processor.replace_image_token(named, found, 0)
    ours = opened(tmp_path, {"model_type": "video_llama_3"}, SETTINGS[settings])
    assert_prepared(ours, ours.prepare(as_image(image)), [whole], text)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"merge_size": 2}, "merge_size=2 is not supported; supported: 1, a row of each patch"),
        ({"temporal_patch_size": 2}, "temporal_patch_size=2 is not supported"),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "for this model: VideoLlama3ImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UnsupportedModel, match=told):
        opened(tmp_path, {"model_type": "video_llama_3"}, settings)
