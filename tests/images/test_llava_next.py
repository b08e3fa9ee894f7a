"""LLaVA-NeXT's pictures against transformers' processor, bit for bit: its blocks, and how many rows they are."""

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

from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_next.modeling_llava_next import unpad_image
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

from in_turn import in_turn

#: As Granite Vision has them, of blocks of 48 pixels.
_MANY = [[48, 48 * n] for n in range(2, 11)] + [[96, 48 * n] for n in range(1, 6)] + [[144, 48 * n] for n in (1, 2, 3)]
#: Of the image processor, of the processor, and of config.json.
SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # as LLaVA 1.6 has it
    "published": (
        {
            "size": {"shortest_edge": 336},
            "crop_size": {"height": 336, "width": 336},
            "aspect_ratio_setting": "anyres",
        },
        {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1},
        {"vision_config": {"image_size": 336, "patch_size": 14}},
    ),
    # as Granite Vision has it: the last pixels of a block fill no patch
    "many grids": (
        {
            "size": {"height": 48, "width": 48},
            "crop_size": {"height": 48, "width": 48},
            "image_grid_pinpoints": _MANY,
            "image_mean": [0.5, 0.5, 0.5],
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
        },
        {"patch_size": 7, "vision_feature_select_strategy": "full"},
        {"vision_config": {"image_size": 48, "patch_size": 7}, "image_grid_pinpoints": _MANY},
    ),
}


def read(directory: Path, settings: str, image: dict[str, Any] | None = None, **processor: Any) -> Any:
    """Args: image, processor: keys that differ."""
    of_image, of_processor, config = SETTINGS[settings]
    whole = {"model_type": "llava_next", **config}
    return opened(directory, whole, {**of_image, **(image or {})}, {**of_processor, **processor})


@in_turn(("settings", SETTINGS), ("name", (*SIZES, *LONG)))
def test_blocks_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    of_image, of_processor, config = SETTINGS[settings]
    theirs, image = LlavaNextImageProcessorPil(**of_image), picture(*(SIZES | LONG)[name])
    found = theirs([as_image(image)])
    named = {"image_token": "<image>", "num_additional_image_tokens": 0, **of_processor}
    whole = SimpleNamespace(image_processor=theirs, **named)
    for part in ("_get_number_of_features", "_get_unpadded_features"):
        setattr(whole, part, getattr(LlavaNextProcessor, part).__get__(whole))
    text = LlavaNextProcessor.replace_image_token(whole, found, 0)
    ours = read(tmp_path, settings)
    prepared = ours.prepare(as_image(image))
    (tile,) = prepared.tiles
    block, side = config["vision_config"]["image_size"], ours.side
    mosaic = Mosaic.of(*tile.shape[:2], block)
    cut = mosaic.blocks(ours.normalized(tile), block)
    expected = np.asarray(found["pixel_values"][0])
    assert len(cut) == len(expected)
    for mine, each in zip(cut, expected, strict=True):
        assert np.array_equal(mine, np.moveaxis(each, 0, -1))
    assert prepared.text == text and ours.rows(*tile.shape[:2]) == text.count("<image>")
    # what is left of the blocks is what transformers' model leaves
    torch = pytest.importorskip("torch")
    numbers = torch.arange(mosaic.rows * mosaic.columns * side**2).reshape(1, mosaic.rows * side, -1)
    left = unpad_image(numbers, found["image_sizes"][0])[0]
    high, wide = mosaic.grid(side)
    assert torch.equal(numbers[0, mosaic.lines :, mosaic.sides :][:high, :wide], left)


def test_grids_are_those_of_transformers() -> None:
    """Of many proportions and areas, as pictures of it would take long."""
    numbers, sizes = np.random.default_rng(0), [(height, width) for height, width in _MANY]
    for given in [(48, 48), (1, 1), (5000, 10), (96, 96), *numbers.integers(1, 400, (1000, 2)).tolist()]:
        assert nearest_size(tuple(given), sizes) == select_best_resolution(tuple(given), sizes), given


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    LlavaNextImageProcessorPil(**SETTINGS["many grids"][0]).save_pretrained(tmp_path)
    whole, image = {"model_type": "llava_next", **SETTINGS["many grids"][2]}, picture(90, 200)
    ours = opened(tmp_path, whole, processor=SETTINGS["many grids"][1])
    theirs = read(tmp_path / "plain", "many grids")
    assert np.array_equal(ours.prepare(image).tiles[0], theirs.prepare(image).tiles[0])
    assert (ours.image_token, ours.placeholder) == ("<image>", "<image>")


def test_the_largest_tile_is_that_of_the_largest_grid(tmp_path: Path) -> None:
    ours = read(tmp_path, "many grids")
    largest = Mosaic.of(*ours.largest_tile(), 48).num_blocks
    assert largest == 1 + max(high * wide for high, wide in _MANY) // 48**2
    rows = ours.rows(*ours.largest_tile())
    assert rows == max(ours.rows(high + 48, wide) for high, wide in _MANY if high * wide == 48**2 * (largest - 1))


@pytest.mark.parametrize(
    ("image", "processor", "told"),
    [
        ({"size": {"shortest_edge": 40}}, {}, "both must be one square"),
        ({"crop_size": {"height": 48, "width": 40}}, {}, "both must be one square"),
        ({"size": {"shortest_edge": 40}, "crop_size": {"height": 40, "width": 40}}, {}, "crop_size is 40, but .*=48"),
        ({"image_grid_pinpoints": [[48, 60]]}, {}, r"image_grid_pinpoints=\[48, 60\] is not supported"),
        ({"image_grid_pinpoints": [[48, 48 * 65]]}, {}, "at most 64 blocks of 48 x 48 pixels"),
        ({"image_grid_pinpoints": []}, {}, "must be a list of heights and widths"),
        ({"image_grid_pinpoints": [[48, 96]]}, {}, "image_grid_pinpoints are not those of"),
        ({"do_center_crop": False}, {}, "'do_center_crop': False"),
        ({"aspect_ratio_setting": "pad"}, {}, "'aspect_ratio_setting': 'pad'"),
        ({"do_normalize": False}, {}, "'do_normalize': False"),
        ({"image_processor_type": "CLIPImageProcessor"}, {}, "for this model: LlavaNextImageProcessor"),
        ({}, {"patch_size": 8}, "patch_size is 8, but .*vision_config has patch_size=7"),
        ({}, {"num_additional_image_tokens": 1}, "num_additional_image_tokens=1 are added .* takes 0 away"),
        ({}, {"vision_feature_select_strategy": "default"}, "takes 1 away"),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    tmp_path: Path, image: dict[str, Any], processor: dict[str, Any], told: str
) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, "many grids", image, **processor)
