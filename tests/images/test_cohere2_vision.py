"""Pictures of Command A Vision and Aya Vision against transformers' processors, bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.images.grids import grids, least_enlarged
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from images.without_torchvision import imported

pytest.importorskip("transformers")

from transformers.models.aya_vision.processing_aya_vision import AyaVisionProcessor
from transformers.models.cohere2_vision.processing_cohere2_vision import Cohere2VisionProcessor
from transformers.models.got_ocr2 import image_processing_pil_got_ocr2 as got_ocr2

from in_turn import in_turn

cohere2_images = imported("transformers.models.cohere2_vision.image_processing_cohere2_vision")

_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
#: Of the image processor, of the processor, and of config.json.
AYA: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "as published, smaller": (
        {"size": {"height": 56, "width": 56}, "crop_to_patches": True, "max_patches": 12, **_HALF}
        | {"image_processor_type": "GotOcr2ImageProcessorFast"},
        {"patch_size": 14, "img_size": 56, "downsample_factor": 2, "processor_class": "AyaVisionProcessor"},
        {"vision_config": {"image_size": 56, "patch_size": 14}, "downsample_factor": 2},
    ),
    "few": (
        {"size": {"height": 30, "width": 30}, "min_patches": 2, "max_patches": 4, "resample": 2},
        {"patch_size": 10, "img_size": 30},
        {"vision_config": {"image_size": 30, "patch_size": 10}, "downsample_factor": 1},
    ),
}
COHERE: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "as published, smaller": (
        {"size": {"height": 64, "width": 64}, "patch_size": 4, "max_patches": 12, **_HALF}
        | {"image_processor_type": "Cohere2VisionImageProcessorFast", "min_patches": 1, "crop_to_patches": True},
        {"processor_class": "Cohere2VisionProcessor"},
        {"vision_config": {"image_size": 64, "patch_size": 8}},
    ),
    "few": (
        {"size": {"height": 40, "width": 40}, "patch_size": 5, "max_patches": 3, "resample": 2},
        {},
        {"vision_config": {"image_size": 40, "patch_size": 8}, "downsample_factor": 1},
    ),
    "one": (
        {"size": {"height": 40, "width": 40}, "patch_size": 5, "crop_to_patches": False},
        {},
        {"vision_config": {"image_size": 40, "patch_size": 8}, "downsample_factor": 1},
    ),
}


def read(directory: Path, kind: str, given: tuple[dict[str, Any], ...], **changes: Any) -> Any:
    """Args: changes: of the image processor's file."""
    of_image, processor, config = given
    return opened(directory, {"model_type": kind, **config}, {**of_image, **changes}, processor)


def own(of_image: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in of_image.items() if key != "image_processor_type"}


@in_turn(("settings", AYA), ("name", (*SIZES, *LONG)))
def test_tiles_and_text_of_aya_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    of_image, processor, _ = AYA[settings]
    image = as_image(picture(*(SIZES | LONG)[name]))
    found = got_ocr2.GotOcr2ImageProcessorPil(**own(of_image))([image], **AyaVisionProcessor.images_kwargs)
    tokenizer = SimpleNamespace(convert_tokens_to_ids=len)
    whole = SimpleNamespace(
        start_of_img_token="<|START_OF_IMG|>",
        end_of_img_token="<|END_OF_IMG|>",
        img_patch_token="<|IMG_PATCH|>",
        tile_token="TILE",
        tile_global_token="TILE_GLOBAL",
        img_size=processor["img_size"],
        patch_size=processor["patch_size"] * processor.get("downsample_factor", 1),
        tokenizer=tokenizer,
    )
    text = AyaVisionProcessor.replace_image_token(whole, found, 0)
    ours = read(tmp_path, "aya_vision", AYA[settings])
    assert_prepared(ours, ours.prepare(image), [np.asarray(tile) for tile in found["pixel_values"]], text)


@in_turn(("settings", COHERE), ("name", (*SIZES, *LONG)))
def test_tiles_and_text_are_those_of_transformers(
    tmp_path: Path, settings: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its processor is GOT's but for the grid that it chooses, and asks torchvision, which is not there."""
    of_image, _, _ = COHERE[settings]
    image = as_image(picture(*(SIZES | LONG)[name]))
    monkeypatch.setattr(got_ocr2, "get_optimal_tiled_canvas", cohere2_images.get_optimal_tiled_canvas)
    theirs = got_ocr2.GotOcr2ImageProcessorPil(**{"crop_to_patches": True, **own(of_image)})
    found = theirs([image])
    whole = SimpleNamespace(
        boi_token="<|START_OF_IMG|>",
        eoi_token="<|END_OF_IMG|>",
        image_token="<|IMG_PATCH|>",
        img_line_break_token="<|IMG_LINE_BREAK|>",
        patch_size=of_image["patch_size"],
    )
    text = Cohere2VisionProcessor.replace_image_token(whole, found, 0)
    ours = read(tmp_path, "cohere2_vision", COHERE[settings])
    assert_prepared(ours, ours.prepare(image), [np.asarray(tile) for tile in found["pixel_values"]], text)


def test_grids_are_those_of_transformers() -> None:
    """Of many proportions and areas, as pictures of it would take long."""
    numbers, some = np.random.default_rng(0), grids(1, 12)
    sizes = [(512, 512), (900, 1800), (1, 1), (5000, 1000), *numbers.integers(1, 3000, (1000, 2)).tolist()]
    for height, width in sizes:
        expected = cohere2_images.get_optimal_tiled_canvas((height, width), (512, 512), 1, 12)
        assert least_enlarged(some, height, width, 512) == tuple(expected), (height, width)


def test_names_of_the_prompt(tmp_path: Path) -> None:
    aya, cohere = read(tmp_path / "a", "aya_vision", AYA["few"]), read(tmp_path / "c", "cohere2_vision", COHERE["few"])
    assert (aya.image_token, aya.placeholder, aya.largest_tile()) == ("<|IMG_PATCH|>", "<image>", (30, 30))
    assert (cohere.image_token, cohere.placeholder) == ("<|IMG_PATCH|>", "<|IMG_PATCH|>")


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("aya_vision", {"size": {"height": 30, "width": 40}}, "tiles are squares"),
        ("aya_vision", {"size": {"height": 40, "width": 40}}, "size is 40, but .*vision_config has image_size=30"),
        ("aya_vision", {"min_patches": 5}, "min_patches=5 must be at most max_patches=4"),
        ("aya_vision", {"max_patches": 65}, "max_patches=65 must be a whole number from 1 to 64"),
        ("aya_vision", {"do_rescale": False}, "'do_rescale': False"),
        ("cohere2_vision", {"patch_size": 4}, "patch_size is 4, which are rows .* gives 5"),
        ("cohere2_vision", {"size": {"height": 48, "width": 48}}, "size is 48, but .* has image_size=40"),
        ("cohere2_vision", {"image_processor_type": "GotOcr2ImageProcessor"}, "for this model: Cohere2VisionImageProc"),
        ("cohere2_vision", {"do_normalize": False}, "'do_normalize': False"),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], told: str
) -> None:
    given = (AYA if kind == "aya_vision" else COHERE)["few"]
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, kind, given, **changes)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"img_size": 40}, "mean 4 rows on a side of a tile, but the tower of config.json gives 3"),
        ({"tile_token": "<tile>"}, "'tile_token': '<tile>'"),
    ],
)
def test_a_processor_of_another_checkpoint_is_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    of_image, processor, config = AYA["few"]
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, "aya_vision", (of_image, {**processor, **changes}, config))
