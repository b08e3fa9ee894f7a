"""Lfm2Vl's pictures against transformers' processor, bit for bit where it resizes with Pillow. And what resizing with
torch, as torchvision does it, would change.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from albireo.images.grids import nearest_grid
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from images.without_torchvision import imported
from in_turn import one_in

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TorchvisionBackend = pytest.importorskip("transformers.image_processing_backends").TorchvisionBackend
Lfm2VlProcessor = pytest.importorskip("transformers.models.lfm2_vl.processing_lfm2_vl").Lfm2VlProcessor
Lfm2VlImageProcessor = imported("transformers.models.lfm2_vl.image_processing_lfm2_vl").Lfm2VlImageProcessor

PICTURES = {**SIZES, **LONG, "large": (1500, 1100, "RGB"), "between": (700, 600, "RGB")}
#: Tiles of 64 pixels, and pictures that are large soon.
_SMALL = {"tile_size": 64, "min_image_tokens": 4, "max_image_tokens": 16, "encoder_patch_size": 8}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "small": _SMALL,
    "colours": {**_SMALL, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7], "resample": 3},
    "no thumbnail": {**_SMALL, "use_thumbnail": False, "max_tiles": 4, "max_pixels_tolerance": 1.0},
    "whole": {**_SMALL, "do_image_splitting": False},
    "four tiles": {**_SMALL, "min_tiles": 4, "max_tiles": 4},
}
_LINES = ("wide", "tall", "a line", "an upright line")
#: What would have more rows as a whole than are allowed.
TOO_LONG = {name: (*_LINES, "thin") for name in ("small", "colours", "whole", "four tiles")} | {
    "no thumbnail": ("thin",)
}


def resize(self: Any, image: Any, size: Any, resample: Any = None, **_: Any) -> Any:
    """uint8 [N, 3, H, W] with Pillow."""
    pictures = [Image.fromarray(each.permute(1, 2, 0).numpy()) for each in image]
    arrays = [np.asarray(each.resize((size.width, size.height), resample)) for each in pictures]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def normalize(self: Any, images: Any, mean: Any, std: Any, **_: Any) -> Any:
    """What torchvision does of a float32 image: less a tensor, by another."""
    return images.sub(mean.view(-1, 1, 1)).div(std.view(-1, 1, 1))


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """transformers' image processor, of settings; it is made without asking whether torchvision is there."""
    monkeypatch.setattr(TorchvisionBackend, "resize", resize)
    monkeypatch.setattr(TorchvisionBackend, "normalize", normalize)

    def made(settings: dict[str, Any]) -> Any:
        processor = object.__new__(Lfm2VlImageProcessor)
        for key, value in settings.items():
            setattr(processor, key, value)
        return processor

    return made


def by_transformers(theirs: Any, image: Any) -> tuple[list[np.ndarray], str]:
    """float32 [3, height, width] of every tile, and the text."""
    names = (*Lfm2VlImageProcessor.valid_kwargs.__annotations__, "resample", "do_rescale", "rescale_factor")
    names += ("do_normalize", "image_mean", "image_std", "do_resize")
    held = {name: getattr(theirs, name, None) for name in names}
    held |= {"image_mean": tuple(theirs.image_mean), "image_std": tuple(theirs.image_std)}
    held |= {"return_row_col_info": True, "return_tensors": None, "disable_grouping": None}
    colours = torch.from_numpy(np.array(as_image(image))).permute(2, 0, 1)
    found = theirs._preprocess([colours], **held)
    tiles = []
    for patches, (tall, wide) in zip(found["pixel_values"], found["spatial_shapes"].tolist(), strict=True):
        side = theirs.encoder_patch_size
        patches = patches[: tall * wide].reshape(tall, wide, side, side, 3)
        tiles.append(patches.permute(4, 0, 2, 1, 3).reshape(3, tall * side, wide * side).numpy())
    whole = object.__new__(Lfm2VlProcessor)
    whole.image_processor, whole.image_token = theirs, "<image>"
    whole.image_start_token, whole.image_end_token = "<|image_start|>", "<|image_end|>"
    whole.image_thumbnail_token = "<|img_thumbnail|>"
    return tiles, whole.replace_image_token(found, 0, use_image_special_tokens=True)


@pytest.mark.parametrize(
    ("settings", "name"),
    one_in(
        4, [(settings, name) for settings in SETTINGS for name in PICTURES if name not in TOO_LONG.get(settings, ())]
    ),
)
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, theirs: Any, settings: str, name: str) -> None:
    image, held = picture(*PICTURES[name]), SETTINGS[settings]
    config = {"model_type": "lfm2_vl", "downsample_factor": 2}
    config["vision_config"] = {"patch_size": held.get("encoder_patch_size", 16)}
    ours = opened(tmp_path, config, held)
    assert_prepared(ours, ours.prepare(as_image(image)), *by_transformers(theirs(held), image))


@pytest.mark.parametrize(
    ("settings", "name"), [(settings, name) for settings in TOO_LONG for name in TOO_LONG[settings]]
)
def test_pictures_too_long_are_refused(tmp_path: Path, theirs: Any, settings: str, name: str) -> None:
    """transformers fails where such a thumbnail comes to tiles, and takes what is not cut, with however many rows."""
    image, held = picture(*PICTURES[name]), SETTINGS[settings]
    if settings == "whole" or name == "thin":
        assert by_transformers(theirs(held), image)[1].count("<image>") > held["max_image_tokens"]
    else:
        with pytest.raises(RuntimeError, match="equal size"):
            by_transformers(theirs(held), image)
    with pytest.raises(InvalidParams, match=f"{image.width} x {image.height} pixels is too long .* 16 are allowed"):
        opened(tmp_path, {"model_type": "lfm2_vl"}, held).prepare(image)


def test_grids_are_those_of_transformers(tmp_path: Path, theirs: Any) -> None:
    """Of many proportions and areas, as pictures of it would take long."""
    ours, processor = opened(tmp_path, {"model_type": "lfm2_vl"}, {}), theirs({})
    numbers = np.random.default_rng(0)
    for height, width in numbers.integers(1, 3000, (2000, 2)).tolist() + [
        [s, s * k] for s in (1, 400, 900) for k in (1, 2, 5)
    ]:
        expected = processor._get_grid_layout(height, width, min_tiles=2, max_tiles=10, tile_size=512)[:2]
        assert nearest_grid(ours.grids, height, width, ours.side) == expected, (height, width)


def test_one_tile_of_a_grid_has_its_own_rows(tmp_path: Path) -> None:
    """transformers writes those of the picture that was not cut, so the model finds others than it has."""
    ours = opened(tmp_path, {"model_type": "lfm2_vl"}, {**_SMALL, "min_tiles": 1, "max_pixels_tolerance": 0.1})
    prepared = ours.prepare(picture(60, 50))
    assert [tile.shape for tile in prepared.tiles] == [(64, 64, 3)]
    assert prepared.text == "<|image_start|>" + "<image>" * 16 + "<|image_end|>"


@pytest.mark.parametrize(("width", "height"), [(640, 480), (1500, 1100), (300, 401), (17, 31)])
def test_resizing_with_torch_changes_few_values_by_one(tmp_path: Path, width: int, height: int) -> None:
    """torch's weights have 16 bits, Pillow's 22: what is nearly half rounds otherwise."""
    image = picture(width, height)
    tile = opened(tmp_path, {"model_type": "lfm2_vl"}, {}).prepare(image).tiles[-1]
    colours = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
    resized = torch.nn.functional.interpolate(colours, tile.shape[:2], mode="bilinear", antialias=True)
    differences = np.abs(resized[0].permute(1, 2, 0).numpy().astype(int) - tile.astype(int))
    assert differences.max() <= 1
    assert differences.mean() < 0.05


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    """As a checkpoint of the model has it."""
    file = {"data_format": "channels_first", "default_to_square": True, "device": None, "disable_grouping": None}
    file |= {"do_center_crop": None, "do_convert_rgb": None, "do_image_splitting": True, "do_normalize": True}
    file |= {"do_pad": True, "do_rescale": True, "do_resize": True, "downsample_factor": 2, "encoder_patch_size": 16}
    file |= {"image_mean": [0.5] * 3, "image_processor_type": "Lfm2VlImageProcessorFast", "image_std": [0.5] * 3}
    file |= {"input_data_format": None, "max_image_tokens": 256, "max_num_patches": 1024, "max_pixels_tolerance": 2.0}
    file |= {"max_tiles": 10, "min_image_tokens": 64, "min_tiles": 2, "processor_class": "Lfm2VlProcessor"}
    file |= {"resample": 2, "rescale_factor": 1 / 255, "return_row_col_info": True, "return_tensors": None}
    file |= {"size": {"height": 512, "width": 512}, "tile_size": 512, "use_thumbnail": True, "crop_size": None}
    ours = opened(tmp_path, {"model_type": "lfm2_vl"}, file, {"processor_class": "Lfm2VlProcessor"})
    plain = opened(tmp_path / "plain", {"model_type": "lfm2_vl"}, {})
    image = picture(1500, 1100)
    assert ours.prepare(image).text == plain.prepare(image).text
    assert (ours.image_token, ours.placeholder) == ("<image>", "<image>")


@pytest.mark.parametrize("of", ["patch_size", "downsample_factor"])
def test_a_tower_of_another_checkpoint_is_refused(tmp_path: Path, of: str) -> None:
    config = {"model_type": "lfm2_vl", "vision_config": {"patch_size": 16}, "downsample_factor": 2}
    config |= {"vision_config": {"patch_size": 14}} if of == "patch_size" else {of: 3}
    with pytest.raises(ModelError, match=f"has {of}=(14|3)"):
        opened(tmp_path, config, {})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"min_tiles": 5, "max_tiles": 4}, "must be at most max_tiles=4"),
        ({"use_image_special_tokens": False}, "special"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((UnsupportedModel, ModelError), match=told):
        opened(tmp_path, {"model_type": "lfm2_vl"}, settings)
