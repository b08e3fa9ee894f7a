"""Llama 4's pictures against transformers' processor, bit for bit where it resizes with Pillow."""

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
from images.with_pillow import colours_of, normalize, pad, resize
from images.without_torchvision import imported
from in_turn import in_turn

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

Llama4Processor = pytest.importorskip("transformers.models.llama4.processing_llama4").Llama4Processor
TorchvisionBackend = pytest.importorskip("transformers.image_processing_backends").TorchvisionBackend
SizeDict = pytest.importorskip("transformers.image_utils").SizeDict
THEIRS = imported("transformers.models.llama4.image_processing_llama4")
PICTURES = {**SIZES, **LONG, "large": (1500, 1100, "RGB"), "between": (700, 600, "RGB")}
_NAME = {"image_processor_type": "Llama4ImageProcessorFast"}
_SMALL = {"size": {"height": 56, "width": 56}}
#: Of the image processor.
SETTINGS: dict[str, dict[str, Any]] = {
    "of a checkpoint": {"size": {"height": 336, "width": 336}, "max_patches": 16, "resize_to_max_canvas": False},
    "small": _SMALL,
    "few": {**_SMALL, "max_patches": 5, "resample": 3},
    "filled": {**_SMALL, "max_patches": 6, "resize_to_max_canvas": True},
    "colours": {**_SMALL, "max_patches": 1, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7]},
}


def config(side: int) -> dict[str, Any]:
    return {"model_type": "llama4", "vision_config": {"patch_size": 14, "image_size": side}}


def by_transformers(settings: dict[str, Any], image: Any) -> tuple[list[np.ndarray], str]:
    """float32 [3, side, side] of every tile, and the text; made without asking whether torchvision is there."""
    own = THEIRS.Llama4ImageProcessor
    names = ("resample", "do_resize", "do_rescale", "do_normalize", "image_mean", "image_std", "max_patches")
    held = {name: getattr(own, name) for name in (*names, "size", "resize_to_max_canvas")} | settings
    held |= {"size": SizeDict(**held["size"]), "rescale_factor": 1 / 255, "disable_grouping": None}
    found = object.__new__(own)._preprocess([colours_of(image)], return_tensors=None, **held)
    THEIRS.find_supported_resolutions.cache_clear()
    named = SimpleNamespace(patch_size=14, downsample_ratio=4)
    named._prompt_split_image = lambda *given: Llama4Processor._prompt_split_image(named, *given)
    tiles = found["pixel_values"][0]
    return [tile.float().numpy() for tile in tiles], Llama4Processor.replace_image_token(named, found, 0)


@pytest.fixture(autouse=True)
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchvisionBackend, "resize", resize)
    monkeypatch.setattr(TorchvisionBackend, "normalize", normalize)
    monkeypatch.setattr(THEIRS.tvF, "pad", pad, raising=False)


@in_turn(("settings", SETTINGS), ("name", PICTURES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    image, held = as_image(picture(*PICTURES[name])), SETTINGS[settings]
    ours = opened(
        tmp_path, config(held["size"]["height"]), {"image_processor_type": "Llama4ImageProcessorFast", **held}
    )
    assert_prepared(ours, ours.prepare(image), *by_transformers(held, image))


@pytest.mark.parametrize("fills", [False, True])
def test_grids_and_sizes_are_those_of_transformers(tmp_path: Path, fills: bool) -> None:
    """Of many proportions and areas, as pictures of it would take long."""
    ours = opened(tmp_path, config(336), {"resize_to_max_canvas": fills})
    some = torch.tensor(THEIRS.find_supported_resolutions(16, SizeDict(height=336, width=336)))
    THEIRS.find_supported_resolutions.cache_clear()
    assert (np.array(ours.grids) * 336 == some.numpy()).all()
    for size in [(336, 336), (480, 640), (1, 1), *np.random.default_rng(0).integers(1, 3000, (1500, 2)).tolist()]:
        target = THEIRS.get_best_fit(size, some, resize_to_max_canvas=fills)
        grid = ours.grid(*size)
        assert [336 * count for count in grid] == target.tolist(), size
        within = target if fills else tuple(min(max(own, 336), most) for own, most in zip(size, target, strict=True))
        wanted = [max(int(side), 1) for side in THEIRS.get_max_res_without_distortion(size, within)]
        assert list(ours._within(*size, grid)) == wanted, size


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    processor = {
        "processor_class": "Llama4Processor",
        "patch_size": 14,
        "pixel_shuffle_ratio": 0.5,
        "fake_image_token": "<|image|>",
        "image_token": "<|image|>",
        "start_of_image_token": "<|image_start|>",
        "end_of_image_token": "<|image_end|>",
        "patch_token": "<|patch|>",
        "tile_x_separator_token": "<|tile_x_separator|>",
        "tile_y_separator_token": "<|tile_y_separator|>",
    }
    ours = opened(tmp_path, config(336), SETTINGS["of a checkpoint"], processor)
    assert (ours.image_token, ours.placeholder, ours.largest_tile()) == ("<|patch|>", "<|image|>", (336, 336))
    assert ours.rows(336, 336) == 144


@pytest.mark.parametrize(
    ("settings", "processor", "told"),
    [
        ({"size": {"height": 56, "width": 28}}, {}, "tiles are squares"),
        ({"size": {"height": 28, "width": 28}}, {}, "size is 28, but .* image_size=56"),
        ({**_SMALL, "max_patches": 65}, {}, "max_patches=65 must be a whole number from 1 to 64"),
        ({**_SMALL, "do_resize": False}, {}, "'do_resize': False"),
        (_SMALL, {"pixel_shuffle_ratio": 1.0}, "mean 16 rows of a tile of 56 x 56 pixels, .* gives 4"),
        (_SMALL, {"patch_token": "<patch>"}, "'patch_token': '<patch>'"),
        ({**_SMALL, "image_processor_type": "CLIPImageProcessor"}, {}, "for this model: Llama4ImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(
    tmp_path: Path, settings: dict[str, Any], processor: dict[str, Any], told: str
) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, config(56), settings, processor)
