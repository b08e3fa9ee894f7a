"""MiniMax M3's pictures against transformers' processor, bit for bit where it resizes with Pillow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import LONG, SIZES, picture
from images.with_pillow import colours_of, normalize, resize
from images.without_torchvision import imported
from in_turn import in_turn

pytest.importorskip("torch")
pytest.importorskip("transformers")

TorchvisionBackend = pytest.importorskip("transformers.image_processing_backends").TorchvisionBackend
SizeDict = pytest.importorskip("transformers.image_utils").SizeDict
PROCESSOR = pytest.importorskip("transformers.models.minimax_m3_vl.processing_minimax_m3_vl").MiniMaxM3VLProcessor
THEIRS = imported("transformers.models.minimax_m3_vl.image_processing_minimax_m3_vl").MiniMaxM3VLImageProcessor
CONFIG = {"model_type": "minimax_m3_vl", "vision_config": {"patch_size": 14}}
SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "few pixels": {"size": {"shortest_edge": 3136, "longest_edge": 50_000}, "resample": 2},
    "colours": {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.9, 0.8, 0.7], "patch_size": 14, "merge_size": 1},
}
#: As it was published.
FIRST = {
    "add_start_end_special_tokens": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "MiniMaxM3VLImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "img_token_compression_config": {
        "image_token_compression_method": "patch_merge",
        "image_token_compression_threshold": 1.1,
        "max_image_resolution": 1008,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "merge_size": 2,
    "patch_size": 14,
    "process_image_mode": "dynamic_res",
    "resample": 3,
    "rescale_factor": 0.00392156862745098,
    "size": [672, 672],
    "temporal_patch_size": 2,
}


def by_transformers(settings: dict[str, Any], image: Any) -> tuple[np.ndarray, str]:
    """float32 [3, height, width] of the tile, and the text; made without asking whether torchvision is there."""
    own = object.__new__(THEIRS)
    names = ("resample", "do_resize", "do_rescale", "do_normalize", "image_mean", "image_std", "size", "patch_size")
    held = {name: getattr(own, name) for name in (*names, "merge_size", "temporal_patch_size")} | settings
    held |= {"size": SizeDict(**held["size"]), "rescale_factor": 1 / 255, "disable_grouping": None}
    held |= {key: tuple(held[key]) for key in ("image_mean", "image_std")}
    found = own._preprocess([colours_of(image)], return_tensors=None, **held)
    ((_, tall, wide),) = found["image_grid_thw"].tolist()
    merge, patch = held["merge_size"], held["patch_size"]
    cut = np.asarray(found["pixel_values"]).reshape(tall // merge, wide // merge, merge, merge, 3, 2, patch, patch)
    assert (cut[:, :, :, :, :, 0] == cut[:, :, :, :, :, 1]).all()
    tile = cut[:, :, :, :, :, 0].transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, tall * patch, wide * patch)
    marks = {key: getattr(PROCESSOR, key) for key in ("VISION_START_TOKEN", "VISION_END_TOKEN", "IMAGE_TOKEN")}
    named = SimpleNamespace(image_processor=SimpleNamespace(merge_size=merge), **marks)
    return tile, PROCESSOR.replace_image_token(named, found, 0)


@pytest.fixture(autouse=True)
def pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TorchvisionBackend, "normalize", normalize)
    # its own asks this one, by another name of what is resized
    monkeypatch.setattr(TorchvisionBackend, "resize", lambda self, image, **given: resize(self, image, **given))


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    image, held = as_image(picture(*SIZES[name])), SETTINGS[settings]
    ours = opened(tmp_path, CONFIG, {"image_processor_type": "MiniMaxM3VLImageProcessor", **held})
    wanted, text = by_transformers(held, image)
    assert_prepared(ours, ours.prepare(image), [wanted], text)


@pytest.mark.parametrize("name", LONG)
def test_pictures_that_transformers_refuses_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidParams, match="is too long in one direction"):
        opened(tmp_path, CONFIG, {}).prepare(picture(*LONG[name]))


def test_published_files_say_what_is_there_without_them(tmp_path: Path) -> None:
    """But for sizes, which they say wrongly."""
    first, own = opened(tmp_path / "first", CONFIG, FIRST), opened(tmp_path / "own", CONFIG, {})
    image = as_image(picture(640, 480))
    assert (first.prepare(image).tiles[0] == own.prepare(image).tiles[0]).all()
    assert first.largest_tile() == own.largest_tile() and (first.pixels.table == own.pixels.table).all()
    assert first.rows(*first.largest_tile()) == 451584 // 28**2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"size": [336, 336]}, "size=.* must be an object"),
        ({"patch_size": 16}, "patch_size is 16, but .* has patch_size=14"),
        ({"process_image_mode": "tiles"}, "'process_image_mode': 'tiles'"),
        ({"img_token_compression_config": {"spatial_merge_size": 4}}, "spatial_merge_size=4 must be 2"),
        (
            {"img_token_compression_config": {"image_token_compression_method": "pool"}},
            "img_token_compression_config: .*'image_token_compression_method': 'pool'",
        ),
        ({"image_processor_type": "Qwen2VLImageProcessor"}, "for this model: MiniMaxM3VLImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, CONFIG, settings)
