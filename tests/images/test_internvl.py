"""InternVL's pictures against transformers' processor, bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.images.grids import grids, nearest_grid
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture

pytest.importorskip("transformers")

from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import (
    GotOcr2ImageProcessorPil,
    get_optimal_tiled_canvas,
)
from transformers.models.internvl.processing_internvl import InternVLProcessor

from in_turn import in_turn

_IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
#: Files of the images and of the processor -> of the whole.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # a file says that pictures are not cut, and the processor cuts them
    "as published, smaller": (
        {
            "size": {"height": 56, "width": 56},
            "crop_to_patches": False,
            "min_patches": 1,
            "max_patches": 12,
            **_IMAGENET,
        }
        | {"image_processor_type": "GotOcr2ImageProcessorFast", "crop_size": None, "default_to_square": True},
        {"image_seq_length": 4, "processor_class": "InternVLProcessor", "video_processor": {"num_frames": 4}},
        {"vision_config": {"image_size": [56, 56], "patch_size": [14, 14]}, "downsample_ratio": 0.5},
    ),
    "one tile": (
        {"size": {"height": 30, "width": 30}, "max_patches": 1, "resample": 2},
        {"image_seq_length": 9},
        {"vision_config": {"image_size": 30, "patch_size": 10}, "downsample_ratio": 1.0},
    ),
    "many": (
        {"size": {"height": 32, "width": 32}, "min_patches": 3, "max_patches": 5},
        {"image_seq_length": 4},
        {"vision_config": {"image_size": 32, "patch_size": 8}},
    ),
}
_PUBLISHED, _ONE, _MANY = SETTINGS


def read(directory: Path, settings: str, config: dict[str, Any] | None = None, **image: Any) -> Any:
    """Args: config: keys of config.json that differ. image: of the image processor's file."""
    of_image, processor, of_config = SETTINGS[settings]
    whole = {"model_type": "internvl", **of_config, **(config or {})}
    return opened(directory, whole, {**of_image, **image}, processor)


@in_turn(("settings", SETTINGS), ("name", (*SIZES, *LONG)))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    of_image, processor, _ = SETTINGS[settings]
    theirs, image = GotOcr2ImageProcessorPil(**of_image), picture(*(SIZES | LONG)[name])
    found = theirs([as_image(image)], **InternVLProcessor.images_kwargs)
    whole = SimpleNamespace(
        start_image_token="<img>",
        end_image_token="</img>",
        image_token="<IMG_CONTEXT>",
        image_seq_length=processor["image_seq_length"],
    )
    text = InternVLProcessor.replace_image_token(whole, found, 0)
    ours = read(tmp_path, settings)
    assert_prepared(ours, ours.prepare(as_image(image)), [np.asarray(tile) for tile in found["pixel_values"]], text)


def test_grids_are_those_of_transformers() -> None:
    """Of many proportions and areas, as pictures of it would take long."""
    numbers, some = np.random.default_rng(0), grids(1, 12)
    sizes = [(448, 448), (900, 1800), (1, 1), (5000, 1000), *numbers.integers(1, 3000, (1000, 2)).tolist()]
    for height, width in sizes:
        expected = get_optimal_tiled_canvas((height, width), (448, 448), 1, 12)
        assert nearest_grid(some, height, width, 448) == expected, (height, width)


def test_names_of_the_prompt(tmp_path: Path) -> None:
    ours = read(tmp_path, _MANY)
    assert (ours.image_token, ours.placeholder, ours.largest_tile()) == ("<IMG_CONTEXT>", "<IMG_CONTEXT>", (32, 32))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"vision_config": {"image_size": [40, 40], "patch_size": 8}}, "size=.* must be the 40 x 40 pixels of"),
        ({"vision_config": {"image_size": 32, "patch_size": 4}}, "image_seq_length is 4, but .* gives 16 rows"),
        ({"downsample_ratio": 0.25}, "image_seq_length is 4, but of a tile of 32 x 32 pixels .* gives 1 rows"),
        ({"vision_config": {"image_size": ["a", 2]}}, "image_size='a' must be a whole number"),
    ],
)
def test_a_tower_of_another_checkpoint_is_refused(tmp_path: Path, config: dict[str, Any], told: str) -> None:
    with pytest.raises(ModelError, match=told):
        read(tmp_path, _MANY, config)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"min_patches": 6}, "min_patches=6 must be at most max_patches=5"),
        ({"max_patches": 65}, "max_patches=65 must be a whole number from 1 to 64"),
        ({"size": {"height": 32, "width": 30}}, "size=.* must be the 32 x 32 pixels"),
        ({"do_center_crop": True}, "'do_center_crop': True"),
        ({"do_normalize": False}, "'do_normalize': False"),
        ({"image_processor_type": "InternVLImageProcessor"}, "InternVLImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, _MANY, **changes)


#: As InternVL's authors publish it, smaller: config.json says how pictures are cut.
_CHAT = {"model_type": "internvl_chat", "vision_config": {"image_size": 56, "patch_size": 14}, "downsample_ratio": 0.5}
_CHAT |= {"max_dynamic_patch": 12, "min_dynamic_patch": 1, "use_thumbnail": True, "dynamic_image_size": True}
_CHAT |= {"force_image_size": 56, "pad2square": False, "ps_version": "v2"}
#: What their code does not ask.
_OF_CLIP = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 448, "crop_size": 448, "do_center_crop": True}


@pytest.mark.parametrize("name", ["ordinary", "wide", "small"])
def test_as_its_authors_publish_it(tmp_path: Path, name: str) -> None:
    """The tiles that transformers makes of a checkpoint of the same."""
    image = as_image(picture(*SIZES[name]))
    ours, theirs = opened(tmp_path / "own", _CHAT, _OF_CLIP), read(tmp_path / "theirs", _PUBLISHED)
    mine, wanted = ours.prepare(image), theirs.prepare(image)
    assert mine.text == wanted.text and len(mine.tiles) == len(wanted.tiles)
    for one, other in zip(mine.tiles, wanted.tiles, strict=True):
        assert np.array_equal(ours.normalized(one), theirs.normalized(other))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"use_thumbnail": False}, "use_thumbnail=False is not supported; supported: True"),
        ({"dynamic_image_size": False}, "dynamic_image_size=False is not supported"),
        ({"force_image_size": 448}, "force_image_size=448 is not supported; supported: 56"),
        ({"ps_version": "v1"}, "ps_version='v1' is not supported"),
        ({"pad2square": True}, "with pad2square=True"),
        ({"min_dynamic_patch": 5, "max_dynamic_patch": 4}, "max_dynamic_patch=4 must be a whole number from 5"),
    ],
)
def test_what_its_authors_may_say_and_is_not_computed(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, {**_CHAT, **changes}, _OF_CLIP)
