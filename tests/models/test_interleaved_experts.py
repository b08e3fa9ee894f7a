"""The experts of gpt-oss as they are published: in MXFP4, and as numbers in turn; against transformers' own reading."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo import LLM, SamplingParams
from albireo.errors import UnsupportedModel, WeightMismatch
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.checkpoint.weights import Checkpoint
from tiny_models import make_checkpoint, random_weights

CONFIG = load_architecture("gpt_oss").tiny | {"intermediate_size": 64}
EXPERTS, HIDDEN, WIDTH = CONFIG["num_local_experts"], CONFIG["hidden_size"], 64
MXFP4 = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}


def in_mxfp4(path: Path, **changes: Any) -> dict[str, Any]:
    """A checkpoint with experts of random codes. Returns: its tensors."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file, save_file

    make_checkpoint(path, CONFIG, seed=3, dtype="bfloat16")
    tensors = load_file(path / "model.safetensors")
    rng = np.random.default_rng(5)
    for layer in range(CONFIG["num_hidden_layers"]):
        block = f"model.layers.{layer}.mlp.experts"
        for module, rows, columns in (("gate_up_proj", 2 * WIDTH, HIDDEN), ("down_proj", HIDDEN, WIDTH)):
            del tensors[f"{block}.{module}"]
            shape = (EXPERTS, rows, columns // 32)
            tensors[f"{block}.{module}_blocks"] = torch.from_numpy(rng.integers(0, 256, (*shape, 16), np.uint8))
            tensors[f"{block}.{module}_scales"] = torch.from_numpy(rng.integers(121, 126, shape, np.uint8))
    tensors |= changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, path / "model.safetensors")
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"quantization_config": MXFP4}))
    return tensors


def test_mxfp4_is_read_as_transformers_does(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    tensors = in_mxfp4(tmp_path)
    with open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64)) as checkpoint:
        assert set(checkpoint.encodings.values()) == {"fp4.g32"}
        assert len(checkpoint.encodings) == 3 * 3 * EXPERTS
        block = "model.layers.1.mlp.experts"
        for module, parts in (("gate_up_proj", ("gate_proj", "up_proj")), ("down_proj", ("down_proj",))):
            packed = (tensors[f"{block}.{module}_blocks"], tensors[f"{block}.{module}_scales"])
            whole = mxfp4.convert_moe_packed_tensors(*packed, dtype=torch.float32).numpy()
            for i, part in enumerate(parts):
                for expert in range(EXPERTS):
                    ours = checkpoint.tensor(f"{block}.{expert}.{part}.weight").to_float32()
                    assert np.array_equal(ours, whole[expert, :, i :: len(parts)].T)
                    bias = checkpoint.tensor(f"{block}.{expert}.{part}.bias").to_float32()
                    stored = tensors[f"{block}.{module}_bias"][expert, i :: len(parts)].float().numpy()
                    assert np.array_equal(bias, stored)


def test_a_model_in_mxfp4_runs(tmp_path: Path) -> None:
    in_mxfp4(tmp_path)
    model = LLM(
        tmp_path, skip_tokenizer_init=True, max_num_seqs=4, max_model_len=64, device="cpu", memory_utilization=0.2
    )
    prompts: Any = [{"prompt_token_ids": [5, 9, 30, 7]}, {"prompt_token_ids": [6, 31]}]
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    together = [out.outputs[0].token_ids for out in model.generate(prompts, params, use_tqdm=False)]
    alone = [model.generate(each, params, use_tqdm=False)[0].outputs[0].token_ids for each in prompts]
    assert together == alone and all(len(ids) == 6 for ids in alone)


def test_numbers_in_turn_are_the_matrices_of_experts(tmp_path: Path) -> None:
    weights = random_weights(CONFIG, 3)
    with Checkpoint(make_checkpoint(tmp_path, CONFIG, seed=3)) as checkpoint:
        assert set(checkpoint.names) == set(weights)
        for name, numbers in weights.items():
            assert np.array_equal(checkpoint.tensor(name).to_float32(), numbers), name


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("gate_up_proj_blocks", (7, 127, 1, 16), r"is \[7, 127, 1, 16\].*even, for gate and up"),
        ("down_proj_blocks", (7, 32, 2, 15), r"is \[7, 32, 2, 15\]; groups of 32 numbers take 16 bytes"),
        ("down_proj_scales", (7, 32, 1), r"is \[7, 32, 1\]; its neighbours imply \[7, 32, 2\]"),
        ("down_proj_scales", None, "there is no tensor '.*down_proj_scales'"),
        ("down_proj_blocks", (7, 32, 32), r"is \[7, 32, 32\]; it must be 3 dims of each"),
    ],
)
def test_what_does_not_fit_is_named(name: str, shape: tuple[int, ...] | None, message: str, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    bad = None if shape is None else torch.zeros(shape, dtype=torch.uint8)
    in_mxfp4(tmp_path, **{f"model.layers.0.mlp.experts.{name}": bad})
    with pytest.raises(WeightMismatch, match=message):
        Checkpoint(tmp_path)


def test_another_way_of_quantizing_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, CONFIG)
    config = json.loads((tmp_path / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedModel, match="experts of gpt-oss are read as numbers or in MXFP4"):
        Checkpoint(tmp_path)
