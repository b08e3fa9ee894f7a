"""Phi-4 multimodal's pictures against transformers' processor, bit for bit where it resizes with Pillow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import opened
from images.pictures import LONG, SIZES, picture
from images.with_pillow import colours_of, normalize
from images.without_torchvision import imported
from in_turn import in_turn

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

TorchvisionBackend = pytest.importorskip("transformers.image_processing_backends").TorchvisionBackend
SizeDict = pytest.importorskip("transformers.image_utils").SizeDict
THEIRS = imported("transformers.models.phi4_multimodal.image_processing_phi4_multimodal")
PICTURES = {**SIZES, **LONG, "large": (1500, 1100, "RGB"), "between": (700, 600, "RGB")}
SETTINGS: dict[str, dict[str, Any]] = {
    "of a checkpoint": {"dynamic_hd": 36},
    "small": {"size": {"height": 64, "width": 64}, "patch_size": 2, "dynamic_hd": 12},
    "few": {"size": {"height": 96, "width": 96}, "patch_size": 3, "dynamic_hd": 3},
    "colours": {"dynamic_hd": 2, "image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7]},
}


def config(settings: dict[str, Any]) -> dict[str, Any]:
    side = settings.get("size", {"height": 448})["height"]
    vision = {"patch_size": settings.get("patch_size", 14), "image_size": side, "crop_size": side}
    return {"model_type": "phi4_multimodal", "vision_config": vision}


def by_transformers(settings: dict[str, Any], image: Any) -> dict[str, Any]:
    """What it makes of a picture, without asking whether torchvision is there."""
    own = THEIRS.Phi4MultimodalImageProcessor
    names = ("resample", "size", "image_mean", "image_std", "patch_size", "dynamic_hd")
    held = {name: getattr(own, name) for name in names} | settings
    # which it keeps what is made of
    held |= {name: tuple(held[name]) for name in ("image_mean", "image_std")}
    held |= {"size": SizeDict(**held["size"]), "rescale_factor": 1 / 255, "return_tensors": None}
    flags = dict.fromkeys(("do_resize", "do_rescale", "do_normalize"), True)
    return dict(object.__new__(own)._preprocess([colours_of(image)], **flags, **held))


def _bilinear(image: Any, size: list[int]) -> Any:
    """With Pillow."""
    resized = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return colours_of(resized)


def _cubic(self: Any, image: Any, size: Any, resample: Any, antialias: bool) -> Any:
    """As torchvision resizes numbers."""
    assert int(resample) == Image.Resampling.BICUBIC and not antialias
    return torch.nn.functional.interpolate(image[None], (size.height, size.width), mode="bicubic", align_corners=False)[
        0
    ]


def _white(image: Any, padding: list[int], fill: list[int]) -> Any:
    assert set(fill) == {255} and padding[:2] == [0, 0]
    return torch.nn.functional.pad(image, (0, padding[2], 0, padding[3]), value=255)


@pytest.fixture(autouse=True)
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchvisionBackend, "resize", _cubic)
    monkeypatch.setattr(TorchvisionBackend, "normalize", normalize)
    for name, made in (("resize", _bilinear), ("pad", _white)):
        monkeypatch.setattr(THEIRS.tvF, name, made, raising=False)


@in_turn(("settings", SETTINGS), ("name", PICTURES))
def test_sheets_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    image, held = as_image(picture(*PICTURES[name])), SETTINGS[settings]
    ours = opened(tmp_path, config(held), held)
    try:
        theirs = by_transformers(held, image)
    except ValueError as error:
        assert "aspect ratio is very extreme" in str(error)
        with pytest.raises(InvalidParams, match="neither may be below 10"):
            ours.prepare(image)
        return
    prepared = ours.prepare(image)
    (tile,), block = prepared.tiles, ours.largest_tile()[1]
    height, width = theirs["image_sizes"][0].tolist()
    mask = theirs["image_attention_mask"][0, 1:].reshape(height // block, width // block, 32, 32)
    mask = mask.transpose(1, 2).reshape(height // block * 32, -1)
    # what a tile is higher, and wider, than its blocks are as many lines, and columns, that nothing is seen of
    unseen = [int((mask[:, 0] == 0).sum()), int((mask[0] == 0).sum())]
    assert list(tile.shape[:2]) == [height + unseen[0], width + unseen[1]]
    numbers = ours.normalized(tile)[:height, :width]
    cut = numbers.reshape(height // block, block, width // block, block, 3).transpose(0, 2, 4, 1, 3)
    assert np.array_equal(cut.reshape(-1, 3, block, block), theirs["image_pixel_values"][0, 1:].numpy())
    assert prepared.text == "<|image|>" * theirs["num_img_tokens"][0]
    assert prepared.text.count("<|image|>") == ours.rows(*tile.shape[:2])


def test_grids_are_those_of_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = opened(tmp_path, config({}), {"dynamic_hd": 7})
    own = object.__new__(THEIRS.Phi4MultimodalImageProcessor)
    monkeypatch.setattr(THEIRS.tvF, "resize", lambda image, size: torch.zeros(1, *size))
    for height, width in np.random.default_rng(0).integers(20, 6000, (60, 2)).tolist():
        if min(height, width) * 18 < max(height, width):
            continue
        colours = torch.zeros(1, height, width, dtype=torch.uint8)
        found, _ = own.dynamic_preprocess(colours, 448, 14, 32, max_num=7)
        assert [448 * count for count in ours.grid(height, width)] == [found.shape[2], found.shape[1]]


def test_the_token_is_the_tokenizers(tmp_path: Path) -> None:
    assert opened(tmp_path, config({}), {}).image_token == "<|image|>"
    for said in ({"image_token": "<|endoftext10|>"}, {"extra_special_tokens": {"image_token": "<|endoftext10|>"}}):
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
        ours = opened(tmp_path, config({}), {})
        assert ours.image_token == ours.placeholder == "<|endoftext10|>"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"size": {"height": 448, "width": 224}}, "blocks are squares of 32 patches of 14 pixels"),
        ({"size": {"height": 224, "width": 224}}, "blocks are squares of 32 patches of 14 pixels"),
        ({"size": {"height": 224, "width": 224}, "patch_size": 7}, "size is 224, but .* crop_size=448"),
        ({"resample": 2}, "resample=2 is not supported"),
        ({"dynamic_hd": 65}, "dynamic_hd=65 must be a whole number from 1 to 64"),
        ({"do_normalize": False}, "'do_normalize': False"),
        ({"image_processor_type": "CLIPImageProcessor"}, "for this model: Phi4MultimodalImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, config({}), settings)
