"""MiniCPM-V 4.6's pictures against transformers' processor, bit for bit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import SIZES, picture
from images.without_torchvision import imported

pytest.importorskip("transformers")

from transformers.models.minicpmv4_6.image_processing_pil_minicpmv4_6 import MiniCPMV4_6ImageProcessorPil

from in_turn import in_turn

MiniCPMV4_6Processor = imported("transformers.models.minicpmv4_6.processing_minicpmv4_6").MiniCPMV4_6Processor

SETTINGS: dict[str, dict[str, Any]] = {
    "as published": {"max_slice_nums": 9, "scale_resolution": 448, "patch_size": 14, "downsample_mode": "16x"},
    "small": {"max_slice_nums": 6, "scale_resolution": 120, "patch_size": 8, "resample": 2},
    "four times as many rows": {"scale_resolution": 100, "patch_size": 8, "downsample_mode": "4x"},
    "not cut": {"slice_mode": False, "scale_resolution": 100, "patch_size": 8, "use_image_id": False},
}
#: No longer than a tile may be.
PICTURES = {**{name: size for name, size in SIZES.items() if name not in ("wide", "tall", "thin")}} | {
    "wide": (900, 90, "RGB"),
    "tall": (90, 700, "RGB"),
    "a square": (700, 700, "RGB"),
}


def read(directory: Path, settings: str, **changes: Any) -> Any:
    held = SETTINGS[settings]
    return opened(
        directory,
        {
            **{"model_type": "minicpmv4_6", "vision_config": {"patch_size": held["patch_size"]}},
            "downsample_mode": held.get("downsample_mode", "16x"),
        },
        {**held, **changes},
    )


def by_transformers(image: Any, held: dict[str, Any]) -> tuple[list[np.ndarray], str]:
    """float32 [3, height, width] of each tile, put together of patches; and the text."""
    found, patch = MiniCPMV4_6ImageProcessorPil(**held)([image]), held["patch_size"]
    pixels, sizes, before = np.asarray(found["pixel_values"][0]), np.asarray(found["target_sizes"]), 0
    tiles = []
    for tall, wide in sizes.tolist():
        rows = pixels[:, :, before : before + tall * wide * patch].reshape(3, patch, tall, wide, patch)
        tiles.append(rows.transpose(0, 2, 1, 3, 4).reshape(3, tall * patch, wide * patch))
        before += tall * wide * patch
    marks = {"image_start": "<image>", "image_end": "</image>", "slice_start": "<slice>", "slice_end": "</slice>"}
    whole = SimpleNamespace(
        image_token="<|image_pad|>",
        slice_mode=held.get("slice_mode", True),
        **{f"{name}_token": mark for name, mark in marks.items()},
    )
    given = {"grids": found["grids"], "target_sizes": sizes, "num_patches_per_image": found["num_patches_per_image"]}
    divisor = 4 if held.get("downsample_mode") == "4x" else 16
    return tiles, MiniCPMV4_6Processor.replace_image_token(whole, given, 0, image_token_divisor=divisor)


@in_turn(("settings", SETTINGS), ("name", PICTURES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    image, ours = as_image(picture(*PICTURES[name])), read(tmp_path, settings)
    expected, text = by_transformers(image, SETTINGS[settings])
    prepared = ours.prepare(image)
    assert_prepared(ours, prepared, expected, text)
    assert prepared.numbered == (None if settings == "not cut" else ("<image_id>", "</image_id>"))
    largest = ours.largest_tile()
    assert all(tile.shape[0] * tile.shape[1] <= largest[0] * largest[1] for tile in prepared.tiles)


def test_sizes_are_those_of_transformers(tmp_path: Path) -> None:
    """Of many proportions and areas, as pictures of it would take long."""
    theirs, ours = MiniCPMV4_6ImageProcessorPil(), read(tmp_path, "as published")
    numbers = np.random.default_rng(0).integers(1, 3000, (1000, 2)).tolist()
    for size in [(448, 448), (900, 1800), (896, 896), *map(tuple, numbers)]:
        grid = theirs.get_sliced_grid(size, 9, 448)
        assert list(ours._grid(*size)) == (grid or [1, 1]), size
        for grows in (False, True):
            assert ours._size(*size, may_grow=grows) == theirs.find_best_resize(size, 448, 14, "16x", grows), size


def test_too_long_in_one_direction(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match="3 x 2000 pixels is too long in one direction"):
        read(tmp_path, "as published").prepare(picture(3, 2000))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"patch_size": 14}, "patch_size is 14, but .*vision_config has patch_size=8"),
        ({"downsample_mode": "4x"}, "downsample_mode is 4x, but .* has 16x; both must be of one checkpoint"),
        ({"downsample_mode": "8x"}, "downsample_mode='8x' is not supported; supported: 16x, 4x"),
        ({"max_slice_nums": 65}, "max_slice_nums=65 must be"),
        ({"do_normalize": False}, "'do_normalize': False"),
        ({"image_processor_type": "Idefics3ImageProcessor"}, "for this model: MiniCPMV4_6ImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        read(tmp_path, "small", **changes)


def test_pictures_of_minicpm_ocr(tmp_path: Path) -> None:
    """As those of MiniCPM-V 4.6 of which four times as many rows are made; or as large as they are, where files say."""
    image, config = as_image(picture(50, 40)), {"model_type": "minicpm_ocr"}
    ours = opened(tmp_path, config, {"image_processor_type": "MiniCPMOcrImageProcessor"})
    expected, text = by_transformers(image, {"patch_size": 14, "downsample_mode": "4x"})
    assert_prepared(ours, ours.prepare(image), expected, text)
    never = opened(tmp_path, config, {"small_image_upsize": "never"})
    assert never.prepare(image).tiles[0].shape[:2] == (28, 56)
    with pytest.raises(UnsupportedModel, match="small_image_upsize='adaptive' is not supported; supported: always, "):
        opened(tmp_path, config, {"small_image_upsize": "adaptive"})
