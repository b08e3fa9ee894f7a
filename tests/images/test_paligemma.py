"""PaliGemma's pictures against transformers' processors, bit for bit."""

from __future__ import annotations

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

from transformers.models.paligemma.processing_paligemma import PaliGemmaProcessor
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from in_turn import in_turn

#: Of the image processor, and of config.json's tower.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "as published": (
        {"size": {"height": 224, "width": 224}, "image_seq_length": 256, "resample": 3, "do_convert_rgb": None}
        | {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "processor_class": "PaliGemmaProcessor"},
        {"patch_size": 14},
    ),
    "small": ({"size": {"height": 60, "width": 60}, "image_seq_length": 36, "resample": 2}, {"patch_size": 10}),
}


def read(directory: Path, settings: str, **changes: Any) -> Any:
    of_image, tower = SETTINGS[settings]
    whole = {"model_type": "paligemma", "vision_config": {**tower, "image_size": of_image["size"]["height"]}}
    return opened(directory, whole, {**of_image, **changes})


@in_turn(("settings", SETTINGS), ("name", (*SIZES, *LONG)))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    of_image, _ = SETTINGS[settings]
    image = as_image(picture(*(SIZES | LONG)[name]))
    found = SiglipImageProcessorPil(**of_image)([image])
    whole = SimpleNamespace(image_token="<image>", image_seq_length=of_image["image_seq_length"])
    text = PaliGemmaProcessor.replace_image_token(whole, found, 0)
    ours = read(tmp_path, settings)
    assert_prepared(ours, ours.prepare(image), [np.asarray(tile) for tile in found["pixel_values"]], text)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image_seq_length": 25}, "image_seq_length is 25, but of a tile of 60 x 60 pixels .* gives 36 rows"),
        ({"size": {"height": 60, "width": 50}}, "tiles are squares"),
        ({"size": {"height": 50, "width": 50}}, "size is 50, but .*vision_config has image_size=60"),
        ({"image_processor_type": "CLIPImageProcessor"}, "for this model: SiglipImageProcessor"),
        ({"do_rescale": False}, "'do_rescale': False"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, "small", **changes)
