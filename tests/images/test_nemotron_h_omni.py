"""Sizes of Nemotron 3 Nano Omni's pictures against transformers' processor; it resizes by torchvision, which is not
here, so colours are those of Pillow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from albireo.errors import InvalidParams, ModelError, UnsupportedModel
from albireo.images.decode import as_image
from images.compared import opened
from images.pictures import picture
from images.without_torchvision import imported

pytest.importorskip("transformers")

_MODULES = "transformers.models.nemotron_h_omni"
THEIRS = imported(f"{_MODULES}.image_processing_nemotron_h_omni")
PROCESSOR = imported(f"{_MODULES}.processing_nemotron_h_omni").NemotronH_Omni_Reasoning_V3Processor
CONFIG = {"model_type": "nemotron_h_omni", "vision_config": {"patch_size": 16}}
#: As first published.
_FIRST = {
    "image_processor_type": "NemotronH_Nano_Omni_Reasoning_V3ImageProcessor",
    "norm_mean": [0.48145466, 0.4578275, 0.40821073],
    "norm_std": [0.26862954, 0.26130258, 0.27577711],
    "_downsample_factor": 2,
    "patch_size": 16,
}


@pytest.mark.parametrize(
    ("held", "most"), [({}, 13312), ({"max_num_patches": 2000}, 2000), ({"max_num_patches": 0}, 65520)]
)
def test_sizes_are_those_of_transformers(tmp_path: Path, held: dict[str, Any], most: int) -> None:
    ours, numbers = opened(tmp_path, CONFIG, {**_FIRST, **held}), np.random.default_rng(0).integers(16, 4000, (500, 2))
    assert ours.most == most
    for height, width in [(512, 512), (16, 16), (1024, 768), *numbers.tolist()]:
        wanted = THEIRS.get_patch_grid_size(height, width, 16, 2, 1024, most)
        # of very long ones it makes less than a line
        if min(wanted) > 1:
            assert ours.grid(height, width) == wanted, (height, width)


def test_tiles_and_text(tmp_path: Path) -> None:
    image, ours = as_image(picture(300, 200)), opened(tmp_path, CONFIG, {**_FIRST, "min_num_patches": 16})
    prepared = ours.prepare(image)
    (tile,) = prepared.tiles
    high, wide = THEIRS.get_patch_grid_size(200, 300, 16, 2, 16, 13312)
    assert tile.shape == (high * 16, wide * 16, 3)
    assert np.array_equal(tile, np.asarray(image.resize((wide * 16, high * 16), 3)))
    named = SimpleNamespace(
        image_processor=SimpleNamespace(downsample_ratio=0.5),
        **{"image_start_token": "<img>", "image_end_token": "</img>", "image_token": "<image>"},
    )
    given = {"image_grid_hw": torch.tensor([[high, wide]])}
    assert prepared.text == PROCESSOR.replace_image_token(named, given, 0)
    assert ours.rows(*tile.shape[:2]) == prepared.text.count("<image>")
    mean, std = np.array(_FIRST["norm_mean"], np.float32), np.array(_FIRST["norm_std"], np.float32)
    np.testing.assert_allclose(ours.normalized(tile), (tile / np.float32(255) - mean) / std, atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(200000, 1), (1, 200000), (20, 213500)])
def test_pictures_that_are_longer_than_any_tile_are_refused(tmp_path: Path, width: int, height: int) -> None:
    """Of one line of blocks, however narrow; the tower has no room for them."""
    ours = opened(tmp_path, CONFIG, _FIRST)
    with pytest.raises(InvalidParams, match=f"{width} x {height} pixels would be .* at most 13312 are read"):
        ours.prepare(Image.new("RGB", (width, height)))
    (tile,) = ours.prepare(Image.new("RGB", (width // 3 + 1, height // 3 + 1))).tiles
    assert tile.shape[0] * tile.shape[1] <= 13312 * 16 * 16


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"patch_size": 14}, "patch_size is 14, but .* has patch_size=16"),
        ({"downsample_ratio": 0.25}, "downsample_ratio=0.25 must be that of config.json, 0.5"),
        ({"image_processor_type": "SiglipImageProcessor"}, "for this model: NemotronH_Omni_Reasoning_V3"),
        ({"use_thumbnail": True}, "'use_thumbnail': True"),
    ],
)
def test_settings_that_are_not_computed_are_refused(tmp_path: Path, settings: dict[str, Any], told: str) -> None:
    with pytest.raises((ModelError, UnsupportedModel), match=told):
        opened(tmp_path, CONFIG, settings)
