"""What a directory says of pictures: which file is read, which keys, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.processor import open_processor
from images.compared import opened
from images.pictures import picture

QWEN = {"model_type": "qwen2_vl"}


@pytest.mark.parametrize("model_type", ["llama", None, 3, ["qwen2_vl"]], ids=str)
def test_other_models_are_refused(tmp_path: Path, model_type: Any) -> None:
    with pytest.raises(UnsupportedModel, match=r"no pictures are read; of these they are: .*gemma3, .*qwen2_vl"):
        open_processor(tmp_path, {"model_type": model_type})


def test_a_directory_that_says_nothing_of_pictures_is_refused(tmp_path: Path) -> None:
    for processor in (None, {"processor_class": "Qwen2VLProcessor"}):
        with pytest.raises(
            ModelError, match=r"has no preprocessor_config\.json, and no processor_config\.json with an"
        ):
            opened(tmp_path, QWEN, processor=processor)


def test_the_table_of_a_processor_comes_before_a_file_of_its_own(tmp_path: Path) -> None:
    ours = opened(tmp_path, QWEN, {"patch_size": 7}, {"image_processor": {"patch_size": 5}})
    assert ours.rows(70, 70) == 49
    assert opened(tmp_path, QWEN, processor={"processor_class": "Qwen2VLProcessor"}).rows(70, 70) == 25


def test_keys_that_change_nothing_are_accepted(tmp_path: Path) -> None:
    image = {"image_processor_type": "Qwen2VLImageProcessorFast", "do_convert_rgb": True, "do_center_crop": False}
    image |= {
        "crop_size": None,
        "data_format": "channels_first",
        "do_pad": None,
        "return_tensors": None,
        "patch_size": None,
    }
    ours = opened(tmp_path, QWEN, image, {"processor_class": "Qwen2VLProcessor", "video_processor": {"fps": 2}})
    plain = opened(tmp_path / "plain", QWEN, {})
    shown = picture(90, 61)
    assert np.array_equal(ours.prepare(shown).tiles[0], plain.prepare(shown).tiles[0])


_EVERYWHERE = {
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "rescale_factor": 0.00392156862745098,
}
_NULLS = dict.fromkeys(("crop_size", "device", "disable_grouping", "do_center_crop", "input_data_format", "pad_size"))
_NULLS |= {"data_format": "channels_first", "default_to_square": True, "do_pad": None, "return_tensors": None}
#: Keys as checkpoints have them, by their models; and how many rows a picture of 640 x 480 has.
FILES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], int]] = {
    "smolvlm": (
        {"scale_factor": 4, "vision_config": {"patch_size": 16, "image_size": 512}},
        _EVERYWHERE
        | {"do_image_splitting": True, "do_pad": True, "image_processor_type": "SmolVLMImageProcessor", "resample": 1}
        | {
            "max_image_size": {"longest_edge": 512},
            "size": {"longest_edge": 2048},
            "processor_class": "SmolVLMProcessor",
        }
        | {"video_sampling": {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 512}}},
        {"image_seq_len": 64, "processor_class": "SmolVLMProcessor"},
        13 * 64,
    ),
    "qwen3_vl": (
        {"vision_config": {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}},
        _EVERYWHERE
        | _NULLS
        | {"image_processor_type": "Qwen2VLImageProcessorFast", "max_pixels": None, "merge_size": 2, "min_pixels": None}
        | {"patch_size": 16, "processor_class": "Qwen3VLProcessor", "resample": 3, "temporal_patch_size": 2}
        | {"size": {"longest_edge": 16777216, "shortest_edge": 65536}},
        {"processor_class": "Qwen3VLProcessor"},
        20 * 15,
    ),
    "mistral3": (
        {"spatial_merge_size": 2, "vision_config": {"patch_size": 14}},
        _EVERYWHERE
        | _NULLS
        | {"image_processor_type": "PixtralImageProcessorFast", "patch_size": {"height": 14, "width": 14}}
        | {"processor_class": "PixtralProcessor", "resample": 3, "size": {"longest_edge": 1540}},
        {"image_break_token": "[IMG_BREAK]", "image_end_token": "[IMG_END]", "image_token": "[IMG]", "patch_size": 14}
        | {"processor_class": "PixtralProcessor", "spatial_merge_size": 2},
        23 * 18,
    ),
}


@pytest.mark.parametrize("model_type", FILES)
def test_files_of_checkpoints_are_read(tmp_path: Path, model_type: str) -> None:
    config, image, processor, num_rows = FILES[model_type]
    ours = opened(tmp_path, {"model_type": model_type, **config}, image, processor)
    assert ours.prepare(picture(640, 480)).text.count(ours.image_token) == num_rows


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("image_mean", [0.5, 0.5], "one number a channel"),
        ("image_mean", 0.5, "list of numbers"),
        ("image_std", [0.5, 0.5, 0], "list of numbers"),
        ("rescale_factor", 0, "must be a number"),
        ("resample", 6, "whole number from 0 to 5"),
        ("resample", "bicubic", "whole number from 0 to 5"),
        ("size", 224, "must be an object"),
        ("patch_size", 0, "must be a whole number from 1"),
    ],
)
def test_bad_values_are_told_with_their_file_and_key(tmp_path: Path, key: str, value: Any, told: str) -> None:
    with pytest.raises(ModelError, match=told) as caught:
        opened(tmp_path, QWEN, {key: value})
    assert f"preprocessor_config.json: {key}=" in str(caught.value)


@pytest.mark.parametrize("key", ["do_resize", "do_rescale", "do_normalize"])
def test_what_is_always_done_cannot_be_left_out(tmp_path: Path, key: str) -> None:
    opened(tmp_path, QWEN, {key: True})
    with pytest.raises(UnsupportedModel, match=f"{key}: False|'{key}'"):
        opened(tmp_path, QWEN, {key: False})


def test_unknown_keys_of_a_processor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"processor_config\.json: 1 keys .*'new_key'"):
        opened(tmp_path, QWEN, {}, {"new_key": 3})


def test_a_processor_of_another_family_is_refused(tmp_path: Path) -> None:
    for family in ("SiglipImageProcessor", "Qwen2VLImageProcessorSlow"):
        with pytest.raises(UnsupportedModel, match=f"image_processor_type='{family}' is not supported; for this model"):
            opened(tmp_path, QWEN, {"image_processor_type": family})


def test_damaged_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match=r"preprocessor_config\.json: is not valid JSON"):
        open_processor(tmp_path, QWEN)


def test_the_room_needs_no_pillow_until_a_picture_comes(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({}))
    code = (
        "import sys; sys.modules['PIL'] = None\n"
        "from pathlib import Path\n"
        "from albireo.images import decode\n"
        "from albireo.images.processor import open_processor\n"
        f"print(open_processor(Path({str(tmp_path)!r}), {QWEN!r}).rows(56, 56))\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "4\n"


@pytest.mark.parametrize(
    ("config", "image", "problem"),
    [
        # each value is possible; what comes of them is not
        (QWEN, {"max_pixels": 2**28}, r"tiles of 9586976 x 28 pixels; at most 33,554,432 pixels"),
        (QWEN, {"patch_size": 1, "merge_size": 1, "max_pixels": 2**24}, r"which are 16,777,216 rows; .* 65,536 rows"),
        (
            {"model_type": "llava", "vision_config": {"image_size": 2**14, "patch_size": 14}},
            {"size": {"shortest_edge": 2**14}, "crop_size": {"height": 2**14, "width": 2**14}},
            "tiles of 16384 x 16384 pixels",
        ),
    ],
)
def test_files_that_would_take_gigabytes_are_refused(
    tmp_path: Path, config: dict[str, Any], image: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ModelError, match=problem):
        opened(tmp_path, config, image)


def test_a_small_picture_does_not_become_an_enormous_one(tmp_path: Path) -> None:
    """The least that a tile has is the file's, which the most that it has does not tell."""
    ours = opened(tmp_path, QWEN, {"min_pixels": 2**28, "max_pixels": 2**20})
    with pytest.raises(InvalidParams, match=r"of 60 x 50 pixels would become 1\d+ x 1\d+, .*; at most 33,554,432"):
        ours.prepare(picture(60, 50))
