"""The processor of Qwen's models against transformers', bit for bit: its patches put together again."""

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

pytest.importorskip("transformers")

from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.processing_qwen2_vl import Qwen2VLProcessor
from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

from in_turn import in_turn

_HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
#: model_type and what its file holds.
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("qwen2_vl", {}),
    "few pixels": ("qwen2_5_vl", {"min_pixels": 3136, "max_pixels": 50_000, "patch_size": 14}),
    "many pixels": ("qwen3_vl", {"size": {"shortest_edge": 65536, "longest_edge": 200_000}, "patch_size": 16} | _HALF),
    "merged by three": ("qwen3_5", {"merge_size": 3, "patch_size": 8, "temporal_patch_size": 1, "resample": 2}),
    "of exaone": ("exaone4_5", {"min_pixels": 900, "max_pixels": 30_000}),
    "both": (
        "qwen3_5_moe",
        {"size": {"shortest_edge": 1, "longest_edge": 2}, "min_pixels": 9000, "max_pixels": 10_000},
    ),
}


def config(model_type: str, settings: dict[str, Any]) -> dict[str, Any]:
    tower = {key: settings[key] for key in ("patch_size", "temporal_patch_size") if key in settings}
    tower |= {"spatial_merge_size": settings["merge_size"]} if "merge_size" in settings else {}
    return {"model_type": model_type, "vision_config": tower}


def put_together(found: Any, theirs: Any) -> np.ndarray:
    """float32 [3, height, width] of the patches of one picture."""
    ((num_frames, tall, wide),) = np.asarray(found["image_grid_thw"])
    assert num_frames == 1
    merge, patch, repeated = theirs.merge_size, theirs.patch_size, theirs.temporal_patch_size
    shape = (tall // merge, wide // merge, merge, merge, 3, repeated, patch, patch)
    patches = np.asarray(found["pixel_values"]).reshape(shape)
    assert (patches == patches[:, :, :, :, :, :1]).all()
    return patches[:, :, :, :, :, 0].transpose(4, 0, 2, 5, 1, 3, 6).reshape(3, tall * patch, wide * patch)


@in_turn(("settings", SETTINGS), ("name", SIZES))
def test_tiles_and_text_are_those_of_transformers(tmp_path: Path, settings: str, name: str) -> None:
    model_type, held = SETTINGS[settings]
    theirs = Qwen2VLImageProcessorPil(**held)
    image = picture(*SIZES[name])
    found = theirs([image])
    whole = SimpleNamespace(image_processor=theirs, image_token="<|image_pad|>")
    text = Qwen2VLProcessor.replace_image_token(whole, found, 0)
    assert Qwen3VLProcessor.replace_image_token(whole, found, 0) == text
    ours = opened(tmp_path, config(model_type, held), held)
    assert_prepared(ours, ours.prepare(as_image(image)), [put_together(found, theirs)], text)


def test_what_transformers_saves_is_read(tmp_path: Path) -> None:
    theirs = Qwen2VLImageProcessorPil(**SETTINGS["many pixels"][1])
    theirs.save_pretrained(tmp_path)
    ours, image = opened(tmp_path, {"model_type": "qwen3_vl_moe"}), picture(90, 200)
    found = theirs([image])
    tokens = "<|image_pad|>" * (int(np.prod(found["image_grid_thw"])) // 4)
    assert_prepared(ours, ours.prepare(image), [put_together(found, theirs)], tokens)


#: As the files of Qwen2.5-VL have it, pixels beside a size that says them again.
_PUBLISHED = {"min_pixels": 3136, "max_pixels": 20_000, "patch_size": 14, "merge_size": 2, "temporal_patch_size": 2}
_PUBLISHED |= {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
_VIDEO = {"video_processor_type": "Qwen2VLVideoProcessor", "fps": 2, "min_frames": 4, "max_frames": 768}


@pytest.mark.parametrize("is_one_file", [False, True])
def test_what_is_said_of_videos_changes_nothing(is_one_file: bool, tmp_path: Path) -> None:
    image = _PUBLISHED | {"size": {"min_pixels": 3136, "max_pixels": 20_000}}
    whole = {"processor_class": "Qwen2_5_VLProcessor", "video_processor": _VIDEO}
    named = {"image_processor": image} if is_one_file else {}
    files = (None if is_one_file else image, whole | named)
    ours, theirs = opened(tmp_path, {"model_type": "qwen2_5_vl"}, *files), Qwen2VLImageProcessorPil(**_PUBLISHED)
    given = picture(200, 90)
    found = theirs([given])
    tokens = "<|image_pad|>" * (int(np.prod(found["image_grid_thw"])) // 4)
    assert_prepared(ours, ours.prepare(given), [put_together(found, theirs)], tokens)


@pytest.mark.parametrize(("width", "height"), [(1, 201), (3, 2000), (2000, 3)])
def test_pictures_that_transformers_refuses_are_refused(tmp_path: Path, width: int, height: int) -> None:
    with pytest.raises(ValueError, match="aspect ratio"):
        Qwen2VLImageProcessorPil()([picture(width, height)])
    with pytest.raises(
        InvalidParams, match=f"{width} x {height} pixels is too long in one direction: at most 200 to 1"
    ):
        opened(tmp_path, {"model_type": "qwen2_vl"}, {}).prepare(picture(width, height))


def test_exaone_has_a_name_of_its_own_for_the_same(tmp_path: Path) -> None:
    held, image = {"image_processor_type": "Exaone4_5_ImageProcessor"}, picture(90, 200)
    ours, theirs = (
        opened(tmp_path, {"model_type": kind}, said) for kind, said in (("exaone4_5", held), ("qwen2_vl", {}))
    )
    assert np.array_equal(ours.prepare(image).tiles[0], theirs.prepare(image).tiles[0])
    with pytest.raises(UnsupportedModel, match=r"Exaone4_5_ImageProcessor.*for this model: Qwen2VLImageProcessor"):
        opened(tmp_path, {"model_type": "qwen2_vl"}, held)


@pytest.mark.parametrize(("width", "height"), [(1, 200), (14, 2800), (2800, 14), (1, 1), (27, 29), (28, 28)])
def test_pictures_at_the_edge_are_those_of_transformers(tmp_path: Path, width: int, height: int) -> None:
    theirs, image = Qwen2VLImageProcessorPil(), picture(width, height)
    ours, found = opened(tmp_path, {"model_type": "qwen2_vl"}, {}), theirs([image])
    tokens = "<|image_pad|>" * (int(np.prod(found["image_grid_thw"])) // 4)
    assert_prepared(ours, ours.prepare(image), [put_together(found, theirs)], tokens)


def test_names_of_the_prompt(tmp_path: Path) -> None:
    ours = opened(tmp_path, {"model_type": "qwen2_vl"}, {})
    assert (ours.image_token, ours.placeholder) == ("<|image_pad|>", "<|image_pad|>")


@pytest.mark.parametrize(
    ("key", "of_tower"),
    [
        ("patch_size", "patch_size"),
        ("merge_size", "spatial_merge_size"),
        ("temporal_patch_size", "temporal_patch_size"),
    ],
)
def test_a_tower_of_another_checkpoint_is_refused(tmp_path: Path, key: str, of_tower: str) -> None:
    with pytest.raises(ModelError, match=f"{key} is .*vision_config has {of_tower}=7; both must be of one checkpoint"):
        opened(tmp_path, {"model_type": "qwen2_vl", "vision_config": {of_tower: 7}}, {})


@pytest.mark.parametrize(
    "settings",
    [{"size": {"shortest_edge": 9}}, {"size": {"height": 9, "width": 9}}, {"do_rescale": False}, {"frames": 3}],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=r"size|do_rescale|frames"):
        opened(tmp_path, {"model_type": "qwen2_vl"}, settings)
