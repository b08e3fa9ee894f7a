"""Tiny heads that draft, as they are published: layers behind a model's last, and EAGLE's in directories of their own.

Tensor names are written out here, independently of albireo.models. Weights are random, or such that a model says what
its last token says alone, and the head knows it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from albireo.models import load_architecture
from tiny_models import random_weights
from transformers_models import transformers

torch = pytest.importorskip("torch")

Tensors = dict[str, NDArray[np.float32]]

#: model_type -> where the layer is, what its parts are called: fc, norms of embeddings and states, last norm.
MTP: dict[str, tuple[str, str, str, str, str]] = {
    "deepseek_v3": ("model.layers.{n}.", "eh_proj", "enorm", "hnorm", "shared_head.norm"),
    "glm4": ("model.layers.{n}.", "eh_proj", "enorm", "hnorm", "shared_head.norm"),
    "glm4_moe": ("model.layers.{n}.", "eh_proj", "enorm", "hnorm", "shared_head.norm"),
    "glm4_moe_lite": ("model.layers.{n}.", "eh_proj", "enorm", "hnorm", "shared_head.norm"),
    "mimo": ("model.mtp_layers.0.", "input_proj", "token_layernorm", "hidden_layernorm", "final_layernorm"),
    "qwen3_5_moe_text": ("mtp.", "fc", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"),
    "qwen3_5_text": ("mtp.", "fc", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"),
    "qwen3_next": ("mtp.", "fc", "pre_fc_norm_embedding", "pre_fc_norm_hidden", "norm"),
}


def config_with_mtp(model_type: str) -> dict[str, Any]:
    """A tiny config.json of a model that has such a layer."""
    config = dict(load_architecture(model_type).tiny)
    if model_type in ("deepseek_v3", "glm4", "glm4_moe", "glm4_moe_lite", "mimo"):
        config["num_nextn_predict_layers"] = 1
    return config


def mtp_weights(config: Mapping[str, Any], seed: int) -> Tensors:
    """Random weights of a model, its layer that guesses among them, by their published names."""
    kind, n = config["model_type"], config["num_hidden_layers"]
    place, fc, embedding_norm, state_norm, last_norm = MTP[kind]
    place = place.format(n=n)
    longer = {**config, "num_hidden_layers": n + 1}
    for key, kept in (("layer_types", "full_attention"), ("mlp_layer_types", "sparse")):
        if key in config:
            longer[key] = [*config[key], kept]
    weights = random_weights(longer, seed)
    rng, hidden = np.random.default_rng(seed + 1), config["hidden_size"]
    found: Tensors = {}
    for name, tensor in weights.items():
        layer = f"model.layers.{n}."
        inner = "layers.0." if place == "mtp." else ""
        found[f"{place}{inner}{name.removeprefix(layer)}" if name.startswith(layer) else name] = tensor
    adds_one = kind.startswith("qwen3")
    for name in (embedding_norm, state_norm, last_norm):
        noise = np.float32(0.2) * rng.standard_normal(hidden, np.float32)
        found[f"{place}{name}.weight"] = noise if adds_one else 1 + noise
    found[f"{place}{fc}.weight"] = rng.standard_normal((hidden, 2 * hidden), np.float32) / np.float32(hidden**0.5)
    return found


def markov(weights: Tensors, config: Mapping[str, Any]) -> Tensors:
    """A model whose layers add nothing, so that what it says depends on its last token alone; and a layer that guesses
    from the token it reads, and from nothing else."""
    silent = ("o_proj.weight", "out_proj.weight", "down_proj.weight", "o_proj.bias", "down_proj.bias")
    made = {name: tensor * 0 if name.endswith(silent) else tensor for name, tensor in weights.items()}
    place, fc, embedding_norm, _, last_norm = MTP[config["model_type"]]
    place, hidden = place.format(n=config["num_hidden_layers"]), config["hidden_size"]
    eye, nothing = np.eye(hidden, dtype=np.float32), np.zeros((hidden, hidden), np.float32)
    made[f"{place}{fc}.weight"] = np.concatenate([nothing, eye] if place.startswith("model.mtp") else [eye, nothing], 1)
    adds_one = config["model_type"].startswith("qwen3")
    made[f"{place}{embedding_norm}.weight"] = np.full(hidden, 0 if adds_one else 1, np.float32)
    made[f"{place}{last_norm}.weight"] = made["model.norm.weight"]
    return made


def eagle_head(path: Path, model: Mapping[str, Any], seed: int, *, has_bias: bool = False) -> tuple[Path, Tensors]:
    """A head of the first EAGLE for a model with this config.json, and its tensors."""
    hidden = model["hidden_size"]
    config = _head_config(model) | {"architectures": ["EagleLlamaForCausalLM"], "vocab_size": model["vocab_size"]}
    shapes = _layer_shapes("layers.0.", config, hidden) | {"fc.weight": (hidden, 2 * hidden)}
    del shapes["layers.0.input_layernorm.weight"]
    if has_bias:
        shapes["fc.bias"] = (hidden,)
    return _written(path, config, _drawn(shapes, seed), {})


def eagle3_head(
    path: Path, model: Mapping[str, Any], seed: int, *, draft_vocab_size: int = 0, layer: str = "midlayer.", **more: Any
) -> tuple[Path, Tensors]:
    """A head of EAGLE 3, likewise.

    Args: draft_vocab_size: ids of its own; 0: the model's. layer: what names begin with. more: keys of config.json.
    """
    hidden, vocab = model["hidden_size"], draft_vocab_size or model["vocab_size"]
    config = _head_config(model) | {
        "architectures": ["LlamaForCausalLMEagle3"],
        "vocab_size": model["vocab_size"],
        **more,
    }
    config["draft_vocab_size"] = vocab
    shapes = _layer_shapes(layer, config, 2 * hidden)
    shapes |= {f"{layer}hidden_norm.weight": (hidden,), "norm.weight": (hidden,), "fc.weight": (hidden, 3 * hidden)}
    if draft_vocab_size:
        shapes["lm_head.weight"] = (vocab, hidden)
    extra: dict[str, NDArray[Any]] = {}
    if draft_vocab_size:
        ids = np.sort(np.random.default_rng(seed).choice(model["vocab_size"], vocab, replace=False))
        extra = {"d2t": ids - np.arange(vocab), "t2d": np.isin(np.arange(model["vocab_size"]), ids)}
    return _written(path, config, _drawn(shapes, seed), extra)


def gemma4_assistant(path: Path, model: Mapping[str, Any], seed: int) -> tuple[Path, Any]:
    """An assistant of a Gemma 4 with this config.json as transformers writes it, and the config that transformers sees
    as much of a window with as the model's next token does: its mask has two positions more."""
    left_out = ("architectures", "torch_dtype", "attention_k_eq_v")
    text = {key: value for key, value in model.items() if key not in left_out}
    text |= {"hidden_size": 40, "intermediate_size": 56, "num_hidden_layers": 4, "num_kv_shared_layers": 4}
    text |= {"layer_types": ["sliding_attention"] * 3 + ["full_attention"], "vocab_size_per_layer_input": 0}
    text |= {"use_double_wide_mlp": False, "enable_moe_block": False, "attention_k_eq_v": True}
    config = transformers.Gemma4AssistantConfig(text_config=text, backbone_hidden_size=model["hidden_size"])
    torch.manual_seed(seed)
    head = transformers.Gemma4AssistantForCausalLM(config).eval()
    for name, each in head.named_parameters():
        if each.ndim > 1:
            torch.nn.init.normal_(each, std=1.3 / each.shape[-1] ** 0.5)
        elif "norm" in name:
            each.data = 1 + 0.2 * torch.randn_like(each)
    head.save_pretrained(path)
    narrow = transformers.Gemma4AssistantConfig(
        text_config={**text, "sliding_window": text["sliding_window"] - 2}, backbone_hidden_size=model["hidden_size"]
    )
    seen = transformers.Gemma4AssistantForCausalLM(narrow).eval()
    seen.load_state_dict(head.state_dict())
    return path, seen


def _head_config(model: Mapping[str, Any]) -> dict[str, Any]:
    """Of one layer of llama's, for a model."""
    config = dict(load_architecture("llama").tiny) | {"hidden_size": model["hidden_size"], "num_hidden_layers": 1}
    return config | {"num_attention_heads": 4, "head_dim": 12, "attention_bias": False, "mlp_bias": False}


def _layer_shapes(layer: str, config: Mapping[str, Any], width: int) -> dict[str, tuple[int, ...]]:
    """Of a layer whose q, k and v read rows of some width."""
    hidden, ffn, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    matrices = {"q": (q, width), "k": (kv, width), "v": (kv, width), "o": (hidden, q)}
    shapes: dict[str, tuple[int, ...]] = {f"{layer}self_attn.{p}_proj.weight": each for p, each in matrices.items()}
    ffns = {"gate": (ffn, hidden), "up": (ffn, hidden), "down": (hidden, ffn)}
    shapes |= {f"{layer}mlp.{p}_proj.weight": shape for p, shape in ffns.items()}
    return shapes | {f"{layer}{norm}.weight": (hidden,) for norm in ("input_layernorm", "post_attention_layernorm")}


def _drawn(shapes: Mapping[str, tuple[int, ...]], seed: int) -> Tensors:
    rng, found = np.random.default_rng(seed), {}
    for name, shape in shapes.items():
        noise = rng.standard_normal(shape, np.float32)
        is_norm = len(shape) == 1 and name.endswith("weight")
        found[name] = 1 + np.float32(0.2) * noise if is_norm else noise * np.float32(1.3 * shape[-1] ** -0.5)
    return found


def _written(
    path: Path, config: Mapping[str, Any], tensors: Tensors, extra: Mapping[str, NDArray[Any]]
) -> tuple[Path, Tensors]:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(config))
    save_file({**tensors, **extra}, path / "model.safetensors")
    return path, tensors
