"""Experts of ERNIE 4.5 VL as they lie in files: of text, then of pictures; and what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.errors import ModelError, UnsupportedModel, WeightMismatch
from albireo.models import load_config
from albireo.models.checkpoint.weights import Checkpoint
from albireo.models.settings.text_part import rope_axes
from tiny_wholes import WHOLES, save

pytest.importorskip("torch")
pytest.importorskip("transformers")

NAME = "ernie4_5_vl_moe"
BLOCK = "model.layers.1.mlp"


def change(folder: Path, **changes: Any) -> None:
    """Keys of the text part."""
    data = json.loads((folder / "config.json").read_text())
    data["text_config"] |= changes
    (folder / "config.json").write_text(json.dumps(data))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_both_kinds_are_read(dtype: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    save(NAME, tmp_path)
    biases = torch.arange(16.0).reshape(2, 8)
    stored = load_file(tmp_path / "model.safetensors") | {f"{BLOCK}.moe_statics.e_score_correction_bias": biases}
    save_file(
        {name: tensor.to(getattr(torch, dtype)) for name, tensor in stored.items()}, tmp_path / "model.safetensors"
    )
    stored = load_file(tmp_path / "model.safetensors")
    others = f"{BLOCK}.pictures"
    with Checkpoint(tmp_path) as checkpoint:
        for name, wanted in {
            **{f"{BLOCK}.experts.{i}.up_proj.weight": stored[f"{BLOCK}.experts.{i}.up_proj.weight"] for i in range(8)},
            **{
                f"{others}.experts.{i}.up_proj.weight": stored[f"{BLOCK}.experts.{8 + i}.up_proj.weight"]
                for i in range(8)
            },
            f"{BLOCK}.gate.weight": stored[f"{BLOCK}.gate.weight"].T,
            f"{others}.gate.weight": stored[f"{BLOCK}.gate.weight_1"].T,
            f"{BLOCK}.moe_statics.e_score_correction_bias": biases[0],
            f"{others}.moe_statics.e_score_correction_bias": biases[1],
        }.items():
            assert np.array_equal(checkpoint.tensor(name).to_float32(), wanted.float().numpy()), name
        assert not any(f"{BLOCK}.experts.8." in name or name.endswith("weight_1") for name in checkpoint.names)


def test_which_tokens_are_of_pictures(tmp_path: Path) -> None:
    """Six ids, as config.json has them, or as they are where it says nothing: these are beyond the vocabulary."""
    save(NAME, tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    ids = {"image_token_id": 7, "image_start_token_id": 9, "video_end_token_id": 3}
    data = {key: value for key, value in data.items() if not key.startswith(("image_", "video_"))} | ids
    (tmp_path / "config.json").write_text(json.dumps(data))
    with Checkpoint(tmp_path) as checkpoint:
        text, pictures = (
            checkpoint.tensor(f"model.tokens_of_{kind}.weight").to_float32() for kind in ("text", "pictures")
        )
    assert text.shape == (125, 3) and np.array_equal(text + pictures, np.ones((125, 3)))
    assert np.flatnonzero(pictures.all(axis=1)).tolist() == [3, 7, 9]


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        (f"{BLOCK}.gate.weight", (40, 16), r"gate.weight' is \[40, 16\]; config.json implies 8 of one of its sides"),
        (f"{BLOCK}.gate.weight_1", (8,), r"gate.weight_1' is \[8\]; config.json implies 8"),
        (f"{BLOCK}.moe_statics.e_score_correction_bias", (1, 8), r"is \[8, 1\]; config.json implies 2"),
    ],
)
def test_tensors_of_another_shape(name: str, shape: tuple[int, ...], message: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    save(NAME, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    save_file({**stored, name: torch.zeros(shape)}, tmp_path / "model.safetensors")
    with pytest.raises(WeightMismatch, match=message):
        Checkpoint(tmp_path)


def test_quantized_files_are_refused(tmp_path: Path) -> None:
    save(NAME, tmp_path)
    data = json.loads((tmp_path / "config.json").read_text())
    data["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(UnsupportedModel, match="experts of two kinds are not read quantized"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe_intermediate_size": [28]}, r"moe_intermediate_size=\[28\] must be two widths"),
        ({"moe_intermediate_size": [28, 0]}, "must be two widths"),
        ({"moe_intermediate_size": "28"}, "moe_intermediate_size='28' must be"),
        ({"mlp_layer_types": ["dense"] * 4}, "no layer has experts"),
    ],
)
def test_keys_that_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(NAME, tmp_path)
    change(tmp_path, **changes)
    with pytest.raises(ModelError, match=message):
        load_config(tmp_path)


def test_pairs_of_rows_and_columns_take_turns() -> None:
    data = {"model_type": NAME, **WHOLES[NAME]}
    assert rope_axes(data) == (1, 2, 1, 2, 0)
    rope = {**data["text_config"]["rope_parameters"], "mrope_section": [3, 1, 1]}
    with pytest.raises(UnsupportedModel, match="as many pairs turn by row as by column"):
        rope_axes({**data, "text_config": {**data["text_config"], "rope_parameters": rope}})
