"""Granite 4 Vision's pictures against transformers' processors: blocks bit for bit, and how many rows they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.images.llava_next import nearest_size
from albireo.models.vision.mosaic import Mosaic
from images.compared import opened
from images.pictures import LONG, SIZES, picture

pytest.importorskip("transformers")

from transformers.models.granite4_vision.processing_granite4_vision import Granite4VisionProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from in_turn import in_turn

_SIDES = [[48 * tall, 48 * wide] for tall in range(1, 11) for wide in range(1, 11) if tall * wide <= 10]
_GRIDS = {"image_grid_pinpoints": _SIDES}
_SIDE = {"height": 48, "width": 48}
#: Of the image processor, of the processor, and of config.json.
IMAGE = {"size": _SIDE, "crop_size": _SIDE, **_GRIDS, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}
PROCESSOR = {"patch_size": 2, "vision_feature_select_strategy": "full", "downsample_rate": "4/8"}
CONFIG = {"vision_config": {"image_size": 48, "patch_size": 2}, **_GRIDS, "downsample_rate": "4/8"}


def read(directory: Path, image: dict[str, Any] | None = None, **processor: Any) -> Any:
    """Args: image, processor: keys that differ."""
    whole = {"model_type": "granite4_vision", **CONFIG}
    return opened(directory, whole, {**IMAGE, **(image or {})}, {**PROCESSOR, **processor})


@in_turn(("resample", (2, 3)), ("name", (*SIZES, *LONG)))
def test_blocks_and_text_are_those_of_transformers(tmp_path: Path, resample: int, name: str) -> None:
    theirs, image = (
        LlavaNextImageProcessorPil(**{**IMAGE, "resample": resample}),
        as_image(picture(*(SIZES | LONG)[name])),
    )
    found = theirs([image])
    named = {"image_token": "<image>", "num_additional_image_tokens": 0, **PROCESSOR}
    whole = SimpleNamespace(image_processor=theirs, **named)
    for part in ("_get_number_of_features", "_get_unpadded_features"):
        setattr(whole, part, getattr(Granite4VisionProcessor, part).__get__(whole))
    ours = read(tmp_path, {"resample": resample})
    prepared = ours.prepare(image)
    (tile,) = prepared.tiles
    cut = Mosaic.of(*tile.shape[:2], 48).blocks(ours.normalized(tile), 48)
    expected = np.asarray(found["pixel_values"][0])
    assert len(cut) == len(expected)
    for mine, each in zip(cut, expected, strict=True):
        assert np.array_equal(mine, np.moveaxis(each, 0, -1))
    assert prepared.text == Granite4VisionProcessor.replace_image_token(whole, found, 0)
    assert ours.rows(*tile.shape[:2]) == prepared.text.count("<image>") <= ours.rows(*ours.largest_tile())


def test_rows_are_as_many_as_transformers_says(tmp_path: Path) -> None:
    """Of many proportions, of which the pictures are not resized."""
    ours, theirs = read(tmp_path), LlavaNextImageProcessorPil(**IMAGE)
    named = SimpleNamespace(image_processor=theirs, num_additional_image_tokens=0, **PROCESSOR)
    named._get_unpadded_features = Granite4VisionProcessor._get_unpadded_features.__get__(named)
    for height, width in np.random.default_rng(0).integers(1, 900, (300, 2)).tolist():
        wanted = Granite4VisionProcessor._get_number_of_features(named, height, width, 48, 48)
        size = ours._mosaic((height, width), nearest_size((height, width), ours.sizes)).size(48)
        assert ours.rows(*size) == wanted, (height, width)


@pytest.mark.parametrize(
    ("image", "processor", "told"),
    [
        ({}, {"downsample_rate": "1/2"}, "downsample_rate is 1/2, but .* has 4/8"),
        ({}, {"num_additional_image_tokens": 1}, "num_additional_image_tokens=1 are added"),
        ({}, {"patch_size": 4}, "patch_size is 4, but .* patch_size=2"),
        ({"image_processor_type": "CLIPImageProcessor"}, {}, "for this model: LlavaNextImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    tmp_path: Path, image: dict[str, Any], processor: dict[str, Any], told: str
) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, image, **processor)
