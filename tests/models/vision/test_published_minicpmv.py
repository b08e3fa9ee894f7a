"""Rows of MiniCPM-V's towers against transformers' SigLIP of any grid and its authors' resampler, restated in torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import published_minicpmv as minicpmv
from albireo.errors import InvariantError, UnsupportedModel
from albireo.models.settings.text_part import inner
from albireo.models.vision.tower import open_tower
from tiny_towers import farthest, opened

torch = pytest.importorskip("torch")

#: A square, a line, a column, and fewer patches than rows that ask.
TILES = ((48, 48), (8, 72), (72, 24), (8, 16))


@pytest.mark.parametrize(
    ("version", "vision"),
    [
        (2.5, {}),
        (2.6, {}),
        # as wide as the text part; a table smaller than tiles
        (4.0, {"hidden_size": 256, "num_attention_heads": 4, "image_size": 40}),
        (4.5, {"num_hidden_layers": 1, "layer_norm_eps": 0.5}),
    ],
)
def test_rows(version: float, vision: dict[str, Any], tmp_path: Path) -> None:
    data, model = minicpmv.save(tmp_path, version, **vision)
    given = [np.random.default_rng(1).standard_normal((*size, 3), np.float32) for size in TILES]
    wanted = [model.double().rows(torch.tensor(tile).double()).numpy() for tile in given]
    for dtype, bound in (("float32", 1e-5), ("bfloat16", 0.05)):
        runner = opened(tmp_path, dtype, **inner(data))
        assert farthest([runner.rows(tile) for tile in given], wanted) < bound


def test_without_the_last_layer(tmp_path: Path) -> None:
    data, model = minicpmv.save(tmp_path)
    del model.vpm.encoder.layers[-1]
    tile = np.random.default_rng(1).standard_normal((48, 32, 3), np.float32)
    runner = opened(tmp_path, **inner({**data, "drop_vision_last_layer": True}))
    assert farthest([runner.rows(tile)], [model.rows(torch.tensor(tile)).numpy()]) < 1e-5


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"version": 2.0}, "version is 2.0, which is not supported; supported: 2.5, 2.6, 4.0, 4.5"),
        ({"version": None, "hidden_size": 2304, "query_num": 64}, "version says none, as those of MiniCPM-V 2,"),
        ({"hidden_size": 200}, "hidden_size=200 is not supported; what asks has heads of 128"),
        ({"vision_config": {"model_type": "vit"}}, "model_type='vit' is not supported"),
    ],
)
def test_what_is_not_computed(changes: dict[str, Any], told: str, tmp_path: Path) -> None:
    data, _ = minicpmv.save(tmp_path)
    changed = {key: value for key, value in {**data, **changes}.items() if value is not None}
    with pytest.raises(UnsupportedModel, match=told):
        open_tower(inner(changed), "float32", "config.json")


def test_tiles_that_are_too_large(tmp_path: Path) -> None:
    data, _ = minicpmv.save(tmp_path)
    with pytest.raises(InvariantError, match="a tile of 64 x 64 pixels; this tower reads up to 49 patches"):
        open_tower(inner(data), "float32", "config.json").patches(64, 64)
