"""Rows of pictures, against transformers; what is refused, and names of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import InvariantError, ModelError, UnsupportedModel, WeightMismatch
from albireo.models.vision.tower import has_tower, open_tower
from tiny_towers import FAMILIES, change_vision, farthest, opened, save, tiles, transformers_rows


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_as_near_to_exact_as_transformers(name: str, dtype: str, tmp_path: Path) -> None:
    """Exact is the same weights in float64; in 16 bits transformers rounds after every operation, and we less often."""
    folder, given = save(tmp_path, name, dtype), tiles(name)
    exact, theirs = (transformers_rows(folder, name, each, given) for each in ("float64", dtype))
    runner = opened(folder, dtype)
    ours = [runner.rows(tile) for tile in given]
    assert [rows.shape for rows in ours] == [rows.shape for rows in exact]
    noise = farthest(theirs, exact)
    assert noise < {"bfloat16": 0.05, "float32": 4e-6}[dtype], "too rough to prove anything"
    assert farthest(ours, exact) < noise * (4 if dtype == "float32" else 1.0)
    assert min(float(np.abs(rows - rows[:1]).max()) for rows in ours) > 0.1, "all rows are alike"


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_counted_before_they_are_computed(name: str, tmp_path: Path) -> None:
    data = change_vision(save(tmp_path, name))
    assert has_tower(data)
    tower, runner = open_tower(data, "float32", "config.json"), opened(tmp_path)
    for tile in tiles(name):
        assert tower.rows(*tile.shape[:2]) == len(runner.rows(tile))


# -- names of tensors --------------------------------------------------------------------------------------------------

#: As published -> as transformers writes models without their head.
PUBLISHED = {
    "idefics3": {"model.vision_model.": "vision_model.", "model.connector.": "connector."},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_names(name: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    (tile, *_) = tiles(name)
    wanted = opened(save(tmp_path, name)).rows(tile)
    renamed = {}
    for own, tensor in load_file(tmp_path / "model.safetensors").items():
        found = next(((new, old) for new, old in PUBLISHED[name].items() if own.startswith(old)), ("text.", ""))
        renamed[found[0] + own.removeprefix(found[1])] = tensor
    save_file(renamed, tmp_path / "model.safetensors")
    assert np.array_equal(opened(tmp_path).rows(tile), wanted)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"connector.modality_projection.proj.weight": None}, "1 missing: connector.modality_projection.proj.weight"),
        ({"vision_model.head.probe": (3, 4)}, "1 extra: vision_model.head.probe"),
        ({"vision_model.post_layernorm.bias": (143,)}, r"vision_model.post_layernorm.bias is \[143\]"),
        ({"vision_model.embeddings.patch_embedding.weight": (144, 3, 8, 9)}, r"patch_embedding.weight is \[144, 216\]"),
    ],
)
def test_tensors_that_do_not_fit(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = save(tmp_path, "idefics3") / "model.safetensors"
    tensors = load_file(path)
    for name in change:
        tensors.pop(name, None)
    save_file(tensors | {name: torch.ones(shape) for name, shape in change.items() if shape}, path)
    with pytest.raises(WeightMismatch, match=words):
        opened(tmp_path)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("idefics3", {"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu' is not supported"),
        ("idefics3", {"num_channels": 4}, "num_channels=4 is not supported"),
        ("idefics3", {"model_type": "clip_vision_model"}, "model_type='clip_vision_model' is not supported"),
        ("idefics3", {"image_size": 80}, "image_size=80 is not supported; .*scale_factor=3"),
        ("idefics3", {"vision_use_head": True}, "'vision_use_head': True"),
    ],
)
def test_towers_that_are_not_computed(name: str, changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModel, match=f"config.json: vision_config: .*{words}"):
        open_tower(change_vision(save(tmp_path, name), **changes), "float32", "config.json")


def test_files_that_say_nonsense(tmp_path: Path) -> None:
    folder = save(tmp_path, "idefics3")
    with pytest.raises(ModelError, match="num_attention_heads=5 must cut hidden_size=144"):
        open_tower(change_vision(folder, num_attention_heads=5), "float32", "config.json")
    with pytest.raises(ModelError, match="vision_config is missing"):
        open_tower({**change_vision(folder), "vision_config": None}, "float32", "config.json")
    with pytest.raises(UnsupportedModel, match="model_type='llama' has no vision tower here"):
        open_tower({"model_type": "llama"}, "float32", "config.json")
    assert not has_tower({"model_type": "llama"})


@pytest.mark.parametrize(("name", "size"), [("idefics3", (96, 88)), ("idefics3", (48, 48))])
def test_tiles_that_are_not_read(name: str, size: tuple[int, int], tmp_path: Path) -> None:
    tower = open_tower(change_vision(save(tmp_path, name)), "float32", "config.json")
    with pytest.raises(InvariantError, match=f"a tile of {size[0]} x {size[1]} pixels"):
        tower.inputs(np.zeros((*size, 3), np.float32))
