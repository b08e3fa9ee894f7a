"""Rows of Phi-3-vision's tower against transformers' CLIP, and what its authors make of its states, restated in
torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import published_phi3_v as phi3_v
from albireo.errors import InvariantError, ModelError, UnsupportedModel
from albireo.models.settings.text_part import inner
from albireo.models.vision.tower import open_tower
from images.published_assistants import ASSISTANTS
from tiny_towers import farthest, opened

torch = pytest.importorskip("torch")

#: One block, a line and a column of them, and a square.
TILES = ((32, 32), (32, 96), (64, 32), (64, 64))


def test_rows(tmp_path: Path) -> None:
    _, model = phi3_v.save(tmp_path)
    given = [np.random.default_rng(1).standard_normal((*size, 3), np.float32) for size in TILES]
    wanted = [model.rows(torch.tensor(tile)).numpy() for tile in given]
    for dtype, bound in (("float32", 1e-5), ("bfloat16", 0.05)):
        runner = opened(tmp_path, dtype, max_patches=17 * 5)
        assert farthest([runner.rows(tile) for tile in given], wanted) < bound


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"img_processor": {"model_name": "google/siglip"}}, "img_processor: model_name='google/siglip'"),
        ({"img_processor": {"type_feature": "cls_patch"}}, "type_feature='cls_patch' is not supported"),
        ({"img_processor": {"layer_idx": 30}}, "vision_feature_layer=30 is not supported"),
        ({"embd_layer": {"hd_transform_order": "glb_sub"}}, "hd_transform_order='glb_sub' is not supported"),
        ({"embd_layer": {"use_fancy": True}}, "'use_fancy': True"),
    ],
)
def test_what_is_not_computed(changes: dict[str, Any], told: str) -> None:
    published = ASSISTANTS["Phi-3.5-vision"][0]
    with pytest.raises((UnsupportedModel, ModelError), match=told):
        open_tower(inner({**published, **changes}), "float32", "config.json")


def test_tiles_that_are_no_blocks(tmp_path: Path) -> None:
    data, _ = phi3_v.save(tmp_path)
    with pytest.raises(InvariantError, match="a tile of 32 x 40 pixels is no blocks of 32 x 32"):
        open_tower(data, "float32", "config.json").patches(32, 40)
