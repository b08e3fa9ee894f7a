"""Mixtures of experts against transformers, and their checkpoints as transformers writes them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from albireo.backends.reference.interpret import interpret
from albireo.backends.reference.kv import ReferenceKV
from albireo.errors import WeightMismatch
from albireo.models import build_graph, load_architecture, load_config, open_checkpoint
from albireo.models.config_keys import parse_config
from models.transformers_logits import distance, fused_experts, logits_by_transformers
from step_batches import Work, make_step
from tiny_models import MIXTURES, is_hybrid, make_checkpoint, random_weights, write_safetensors
from variants import tiny_of

IDS = [5, 17, 3, 90, 44, 8, 61, 12, 13, 99, 101, 7]

#: Those that are published with a matrix for each expert, by names that end as in transformers.
_OTHERWISE = (
    "bailing_hybrid",
    "bailing_moe",
    "dbrx",
    "flint",
    "glm5_next_text",
    "kolibri1",
    "sarvam_moe",
    "gpt_oss",
    "granitemoe",
    "granitemoe_swa",
    "granitemoehybrid",
    "granitemoeshared",
    "hy_v3",
    "jetmoe",
    "kimi_linear",
    "laguna",
    "lara_mini",
    "mimo_v2_flash",
    "minimax_m3_vl_text",
    "llama4_text",
    "longcat_flash",
    "mistral_large4_text",
    "nemotron_h",
    "zaya",
)
OF_MATRICES = [name for name in MIXTURES if name not in _OTHERWISE]


def tiny(name: str, **changes: Any) -> dict[str, Any]:
    return {**load_architecture(name).tiny, **changes}


def reference_logits(config: dict[str, Any], weights: dict[str, np.ndarray]) -> np.ndarray:
    rules = load_architecture(config["model_type"]).rules
    graph = build_graph(parse_config(config, rules), 64)
    return np.asarray(interpret(graph, make_step([Work(IDS, 0, [0], 0)], 16), weights, ReferenceKV(1, 16))["logits"])


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        *((name, {}) for name in OF_MATRICES),
        ("qwen3_moe", {"norm_topk_prob": False, "decoder_sparse_step": 2, "mlp_only_layers": []}),
        ("qwen2_moe", {"norm_topk_prob": True, "num_experts_per_tok": 7}),
        ("mixtral", {"num_experts_per_tok": 1}),
        ("lfm2_moe", {"use_expert_bias": False, "num_dense_layers": 0}),
        ("lfm2_moe", {"norm_topk_prob": False, "conv_bias": True, "routed_scaling_factor": 1.0}),
    ],
)
def test_logits_equal_transformers(name: str, changes: dict[str, Any]) -> None:
    config = tiny(name, **changes)
    weights = random_weights(config, seed=5)
    theirs = logits_by_transformers(config, weights, IDS)
    # of a recurrence transformers solves for 64 tokens at once, and is further off than token by token
    limit = 1e-5 if is_hybrid(config) or name == "jamba" else 3e-6
    assert distance(reference_logits(config, weights)[: len(theirs)], theirs) < limit


@pytest.mark.parametrize("name", OF_MATRICES)
def test_experts_that_lie_in_one_tensor_are_the_same_matrices(name: str, tmp_path: Path) -> None:
    config = tiny(name)
    make_checkpoint(tmp_path, config, seed=6)
    weights = random_weights(config, seed=6)
    write_safetensors(tmp_path / "model.safetensors", fused_experts(config, weights), "float32")
    with open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64)) as checkpoint:
        assert set(checkpoint.names) == set(weights)
        for each in checkpoint.names:
            np.testing.assert_array_equal(checkpoint.tensor(each).to_float32(), weights[each])
            assert checkpoint.shape(each) == weights[each].shape
            checkpoint.release(each)


def test_experts_beside_an_ffn_lie_in_one_tensor_or_apart(tmp_path: Path) -> None:
    """As they are published, and as they are where each is quantized by itself."""
    config, weights = tiny_of("gemma4_text, experts"), random_weights(tiny_of("gemma4_text, experts"), seed=6)
    make_checkpoint(tmp_path / "joined", config, seed=6)
    make_checkpoint(tmp_path / "apart", config, seed=6)
    write_safetensors(tmp_path / "apart" / "model.safetensors", weights, "float32")
    for name in ("joined", "apart"):
        with open_checkpoint(tmp_path / name, build_graph(load_config(tmp_path / name), 64)) as checkpoint:
            assert set(checkpoint.names) == set(weights)
            for each in checkpoint.names:
                np.testing.assert_array_equal(checkpoint.tensor(each).to_float32(), weights[each])


def test_what_transformers_writes_is_read(tmp_path: Path) -> None:
    """Under the published names, and under those it has in memory."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    config = tiny("qwen2_moe", num_hidden_layers=2)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), experts_implementation="eager", dtype=torch.float32
    )
    for i, options in enumerate(({}, {"save_original_format": False})):
        place = tmp_path / str(i)
        model.save_pretrained(place, **options)
        with open_checkpoint(place, build_graph(load_config(place), 64)) as checkpoint:
            down = checkpoint.tensor("model.layers.1.mlp.experts.6.down_proj.weight").to_float32()
            np.testing.assert_array_equal(down, model.model.layers[1].mlp.experts.down_proj[6].detach().numpy())
            up = checkpoint.tensor("model.layers.1.mlp.experts.3.up_proj.weight").to_float32()
            np.testing.assert_array_equal(up, model.model.layers[1].mlp.experts.gate_up_proj[3, 44:].detach().numpy())


def test_experts_that_are_no_matrices_are_refused(tmp_path: Path) -> None:
    config = tiny("qwen3_moe")
    make_checkpoint(tmp_path, config)
    weights = fused_experts(config, random_weights(config, 0))
    name = "model.layers.1.mlp.experts.gate_up_proj"
    for shape in ((11, 71, 32), (11 * 72, 32)):
        write_safetensors(tmp_path / "model.safetensors", weights | {name: np.zeros(shape, np.float32)}, "float32")
        with pytest.raises(WeightMismatch, match=re.escape(f"is {list(shape)}; it must be a matrix for each")):
            open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64))


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    config = tiny("mixtral")
    make_checkpoint(tmp_path, config)
    weights = random_weights(config, 0)
    del weights["model.layers.1.block_sparse_moe.experts.3.w2.weight"]
    write_safetensors(tmp_path / "model.safetensors", weights, "float32")
    with pytest.raises(WeightMismatch, match=r"1 missing: model.layers.1.block_sparse_moe.experts.3.w2.weight"):
        open_checkpoint(tmp_path, build_graph(load_config(tmp_path), 64))
    assert json.loads((tmp_path / "config.json").read_text())["num_local_experts"] == 5
