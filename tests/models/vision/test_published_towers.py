"""Rows of towers that transformers has no class of, against what their authors publish, restated in torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel
from albireo.models.vision.tower import open_tower
from restated_towers import DOTS, dots_rows, dots_shapes, drawn
from tiny_towers import farthest, opened
from tower_family import LLAMA

torch = pytest.importorskip("torch")

_TEXT = {key: value for key, value in LLAMA.items() if key != "model_type"}
#: Grids of several sizes, and one line of blocks.
_TILES = ((48, 96), (112, 80), (16, 144))


def save_dots(folder: Path, **vision: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns: what config.json holds, and tensors."""
    from safetensors.torch import save_file

    data = {**_TEXT, "model_type": "dots_ocr", "vision_config": {**DOTS, **vision}}
    tensors = drawn(dots_shapes(data["vision_config"]))
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(data))
    return data, tensors


@pytest.mark.parametrize(
    "vision", [{}, {"use_bias": True, "rms_norm_eps": 0.5}, {"post_norm": False, "spatial_merge_size": 1}]
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows_of_dots_ocr(vision: dict[str, Any], dtype: str, tmp_path: Path) -> None:
    data, tensors = save_dots(tmp_path, **vision)
    given = [np.random.default_rng(1).standard_normal((*size, 3), np.float32) for size in _TILES]
    ours = [opened(tmp_path, dtype, max_patches=160).rows(tile) for tile in given]
    wanted = [dots_rows(tensors, data["vision_config"], torch.tensor(tile).double()).numpy() for tile in given]
    assert farthest(ours, wanted) < (1e-5 if dtype == "float32" else 0.05)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_attention_heads": 24}, "heads of 6 are not four equal parts"),
        ({"temporal_patch_size": 2}, "'temporal_patch_size': 2"),
        ({"is_causal": True}, "'is_causal': True"),
        ({"hidden_size": 96}, "hidden_size=96 must be the text part's hidden_size=48"),
    ],
)
def test_towers_that_are_not_computed(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    data, _ = save_dots(tmp_path)
    with pytest.raises((UnsupportedModel, ModelError), match=f"config.json: vision_config: .*{words}"):
        open_tower({**data, "vision_config": {**DOTS, **changes}}, "float32", "config.json")
