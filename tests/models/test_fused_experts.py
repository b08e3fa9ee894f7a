"""Tensors of all experts of a layer whose columns come first are read as matrices of each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from albireo.errors import WeightMismatch
from albireo.models.checkpoint.weights import Checkpoint
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


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        # a matrix of one expert by itself, beside the tensor that has it, too
        ({"experts.gate_up_proj": (2, 6, 4), "experts.1.up_proj.weight": (3, 4)}, "is there twice, in .*; one must go"),
        ({"experts.gate_up_proj": (2, 5, 4)}, r"is \[2, 5, 4\]; it must be a matrix for each"),
        (
            {"experts.down_proj": (2, 5, 4), "experts.gate_up_proj_scale_inv": (2, 3, 1)},
            r"\[2, 3, 1\]; it must have a sca",
        ),
        ({"experts.down_proj": (2, 5, 4), "experts.down_proj_scale_inv": (2, 3)}, r"\[2, 3\]; it must have a scale"),
        ({"experts.down_proj": (5000, 1, 1)}, r"is \[5000, 1, 1\]; it must be a matrix for each"),
    ],
)
def test_tensors_of_experts_that_cannot_be_are_named(
    tensors: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    made = {f"model.layers.0.mlp.{name}": np.ones(shape, np.float32) for name, shape in tensors.items()}
    write_safetensors(tmp_path / "model.safetensors", made, "float32")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen3_moe"}))
    with pytest.raises(WeightMismatch, match=message):
        Checkpoint(tmp_path)


def test_a_vector_of_no_heads_is_no_vector(tmp_path: Path) -> None:
    """Kimi Linear's A_log [1, 1, heads, 1], with a 0 where a 1 should be; beside what makes the tensors be split."""
    names = {"self_attn.A_log": (1, 0, 3, 1), "self_attn.q_conv1d.weight": (4, 1, 2)}
    made = {f"model.layers.0.{name}": np.ones(shape, np.float32) for name, shape in names.items()}
    write_safetensors(tmp_path / "model.safetensors", made, "float32")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "kimi_linear"}))
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.shape("model.layers.0.self_attn.A_log") == (1, 0, 3, 1)
        checkpoint.check_readable("model.layers.0.self_attn.A_log")
        assert checkpoint.tensor("model.layers.0.self_attn.A_log").num_bytes == 0
