"""Pictures of MiniCPM-V 2.6 to 4.5 against transformers' processor of MiniCPM-V 4.6, whose tiles are blocks of patches:
where a block is as large as a patch here, they are cut alike, bit for bit; and against texts as their authors write
them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import assert_prepared, opened
from images.pictures import picture
from images.test_minicpmv4_6 import PICTURES, by_transformers

pytest.importorskip("transformers")

CONFIG = {
    "model_type": "minicpmv",
    "version": "2.6",
    "vision_config": {"patch_size": 14},
    "image_size": 448,
    "query_num": 64,
}
FIRST = {"image_processor_type": "MiniCPMVImageProcessor", "use_image_id": True, "im_start": "<image>", "version": 2.6}


@pytest.mark.parametrize("name", PICTURES)
def test_tiles_and_text(tmp_path: Path, name: str) -> None:
    image, ours = as_image(picture(*PICTURES[name])), opened(tmp_path, CONFIG, FIRST)
    expected, text = by_transformers(image, {"patch_size": 7, "downsample_mode": "4x"})
    prepared = ours.prepare(image)
    assert_prepared(ours, prepared, expected, re.sub(r"(<\|image_pad\|>)+", "<unk>" * 64, text))
    assert prepared.numbered == ("<image_id>", "</image_id>")


@pytest.mark.parametrize("use_image_id", [False, True])
def test_a_grid_as_its_authors_write_it(use_image_id: bool, tmp_path: Path) -> None:
    """Of 900 x 600 pixels: two lines of three are nearest in proportions, of two to four that it has pixels for."""
    settings = {**FIRST, "use_image_id": use_image_id, "image_feature_size": 2, "max_slice_nums": 6}
    settings |= {"norm_mean": [0.1, 0.2, 0.3], "norm_std": [0.9, 0.8, 0.7], "scale_resolution": 252}
    ours = opened(tmp_path, {**CONFIG, "query_num": 2, "image_size": 252}, settings)
    image = as_image(picture(900, 600))
    expected, _ = by_transformers(
        image,
        {"patch_size": 7, "downsample_mode": "4x", "max_slice_nums": 6, "scale_resolution": 252}
        | {"image_mean": settings["norm_mean"], "image_std": settings["norm_std"]},
    )
    line = "<slice><unk><unk></slice>" * 3
    prepared = ours.prepare(image)
    assert_prepared(ours, prepared, expected, f"<image><unk><unk></image>{line}\n{line}")
    assert (prepared.numbered is not None) == use_image_id
    first = opened(tmp_path, {**CONFIG, "version": "2.5", "query_num": 2, "image_size": 252}, settings)
    line = "<image><unk><unk></image>" * 3
    assert first.prepare(image).text == f"<image><unk><unk></image><slice>{line}\n{line}</slice>"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"patch_size": 16}, "patch_size is 16, but .*vision_config has patch_size=14"),
        ({"scale_resolution": 980}, "scale_resolution is 980, but .* has image_size=448"),
        ({"image_feature_size": 96}, "image_feature_size is 96, but .* has query_num=64"),
        ({"slice_mode": False}, "slice_mode=False is not supported"),
        ({"im_start": "<img>"}, "'im_start': '<img>'"),
        ({"image_processor_type": "MiniCPMV4_6ImageProcessor"}, "for this model: MiniCPMVImageProcessor"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, CONFIG, {**FIRST, **changes})
