"""LLaVA-OneVision's pictures against transformers' processor, bit for bit: its blocks, and how many rows they are."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.models.vision.mosaic import Mosaic, shrunk
from images.compared import opened
from images.pictures import LONG, SIZES, picture
from images.without_torchvision import imported

pytest.importorskip("transformers")

from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil

from in_turn import in_turn

LlavaOnevisionProcessor = imported(
    "transformers.models.llava_onevision.processing_llava_onevision"
).LlavaOnevisionProcessor

_GRIDS = [[50 * high, 50 * wide] for high in range(1, 7) for wide in range(1, 7)]
_NAMED = {"vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9"}
#: Of the image processor, of the processor, and of config.json.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # smaller; the last pixels of a block fill no patch
    "as published": (
        {
            "size": {"height": 50, "width": 50},
            "image_grid_pinpoints": _GRIDS,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
        },
        {**_NAMED, "num_image_tokens": 49, "video_token": "<video>"},
        {"vision_config": {"image_size": 50, "patch_size": 7}, "image_grid_pinpoints": _GRIDS, **_NAMED},
    ),
    "few rows": (
        {"size": {"height": 50, "width": 50}, "image_grid_pinpoints": _GRIDS, "resample": 2},
        {**_NAMED, "num_image_tokens": 25, "vision_aspect_ratio": "anyres_max_2"},
        {
            "vision_config": {"image_size": 50, "patch_size": 10},
            "image_grid_pinpoints": _GRIDS,
            "vision_aspect_ratio": "anyres_max_2",
        },
    ),
}


def read(directory: Path, settings: str, image: dict[str, Any] | None = None, **processor: Any) -> Any:
    """Args: image, processor: keys that differ."""
    of_image, of_processor, config = SETTINGS[settings]
    whole = {"model_type": "llava_onevision", **config}
    return opened(directory, whole, {**of_image, **(image or {})}, {**of_processor, **processor})


@in_turn(("settings", SETTINGS), ("name", (*SIZES, *LONG)))
def test_blocks_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    of_image, of_processor, _ = SETTINGS[settings]
    theirs, image = LlavaOnevisionImageProcessorPil(**of_image), picture(*(SIZES | LONG)[name])
    found = theirs([as_image(image)])
    whole = SimpleNamespace(image_processor=theirs, image_token="<image>", **of_processor)
    for part in ("_get_number_of_features", "_get_unpadded_features"):
        setattr(whole, part, getattr(LlavaOnevisionProcessor, part).__get__(whole))
    text = LlavaOnevisionProcessor.replace_image_token(whole, found, 0)
    ours = read(tmp_path, settings)
    prepared = ours.prepare(as_image(image))
    (tile,) = prepared.tiles
    cut = Mosaic.of(*tile.shape[:2], 50).blocks(ours.normalized(tile), 50)
    expected = np.asarray(found["pixel_values"][0])
    assert len(cut) == len(expected)
    for mine, each in zip(cut, expected, strict=True):
        assert np.array_equal(mine, np.moveaxis(each, 0, -1))
    assert prepared.text == text and ours.rows(*tile.shape[:2]) == text.count("<image>")


def test_what_absent_keys_mean(tmp_path: Path) -> None:
    ours = opened(tmp_path, {"model_type": "llava_onevision"}, {}, {})
    theirs = LlavaOnevisionImageProcessorPil()
    assert [list(size) for size in ours.sizes] == theirs.image_grid_pinpoints
    assert (ours.block, ours.side, ours.most) == (theirs.size["height"], 384 // 16, 9)
    assert ours.largest_tile() == (7 * 384, 6 * 384)


def test_rows_are_fewer_where_there_are_clearly_more_than_blocks_have() -> None:
    assert shrunk((81, 81), 27, 9) == (81, 81) and shrunk((89, 89), 27, 9) == (89, 89)
    assert shrunk((108, 108), 27, 9) == (81, 81) and shrunk((54, 162), 27, 9) == (46, 140)


@pytest.mark.parametrize(
    ("image", "processor", "told"),
    [
        ({"size": {"height": 50, "width": 40}}, {}, "blocks are squares"),
        ({"size": {"height": 40, "width": 40}}, {}, "size is 40, but .*vision_config has image_size=50"),
        ({"image_grid_pinpoints": [[50, 50]]}, {}, "image_grid_pinpoints are not those of"),
        ({"do_normalize": False}, {}, "'do_normalize': False"),
        ({"image_processor_type": "LlavaNextImageProcessor"}, {}, "for this model: LlavaOnevisionImageProcessor"),
        ({}, {"num_image_tokens": 64}, "num_image_tokens is 64, but .* gives 49 rows"),
        ({}, {"vision_aspect_ratio": "anyres_max_4"}, "vision_aspect_ratio is not that of"),
        ({}, {"vision_aspect_ratio": "anyres"}, "vision_aspect_ratio='anyres' is not supported"),
        ({}, {"vision_feature_select_strategy": "default"}, "vision_feature_select_strategy='default' is not supp"),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    tmp_path: Path, image: dict[str, Any], processor: dict[str, Any], told: str
) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, "as published", image, **processor)
