"""Tensors of all experts of a layer whose columns come first are read as matrices of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from albireo.models.weights import Checkpoint
from tiny_models import write_safetensors


def turn_experts(path: Path) -> None:
    """Swap rows and columns of a file's tensors of all experts."""
    from safetensors.numpy import load_file, save_file

    tensors = load_file(path)
    turned = {
        name: np.ascontiguousarray(each.swapaxes(1, 2)) if ".mlp.experts." in name else each
        for name, each in tensors.items()
    }
    assert any(turned[name].shape != each.shape for name, each in tensors.items())
    save_file(turned, path)


def test_columns_are_rows_of_each(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    gate_up, down = rng.standard_normal((3, 8, 12), np.float32), rng.standard_normal((3, 6, 8), np.float32)
    experts = "model.language_model.layers.0.mlp.experts"
    write_safetensors(
        tmp_path / "model.safetensors", {f"{experts}.gate_up_proj": gate_up, f"{experts}.down_proj": down}, "bfloat16"
    )
    config = {"model_type": "qwen3_vl_moe", "text_config": {"hidden_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with Checkpoint(tmp_path) as checkpoint:
        assert len(checkpoint.names) == 9
        for expert in range(3):
            name = f"model.layers.0.mlp.experts.{expert}"
            parts = {"gate": gate_up[expert, :, :6].T, "up": gate_up[expert, :, 6:].T, "down": down[expert].T}
            for part, wanted in parts.items():
                found = checkpoint.tensor(f"{name}.{part}_proj.weight")
                assert found.dtype == "bfloat16" and found.shape == wanted.shape
                np.testing.assert_allclose(found.to_float32(), wanted, rtol=2**-8)
                checkpoint.release(f"{name}.{part}_proj.weight")
