"""Tensor names and shapes of checkpoints of LFM2 and LFM3, as they are published.

Used by tiny_models.py. Written out here, independently of albireo.models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_parts import MIXTRAL, Shapes, below, experts, gated

#: Architectures whose layers have short convolutions.
SHORT_CONVS = ("lfm2", "lfm2_moe", "lfm3")


def attends(config: Mapping[str, Any], layer: int) -> bool:
    """Whether a layer has attention."""
    if config.get("layer_types"):
        return bool(config["layer_types"][layer] != "conv")
    if config["model_type"] == "lfm3":
        return layer > 0 and layer % 2 == 0
    return layer in config["full_attn_idxs"]


def short_conv_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of a checkpoint of one of SHORT_CONVS, as it is read; see convolutions_as_stored()."""
    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(layers):
        layer = _attention(config) if attends(config, i) else _convolution(config)
        layer |= {"operator_norm.weight": (hidden,), "ffn_norm.weight": (hidden,)}
        if config.get("use_sandwich_norm"):
            layer |= {"post_operator_norm.weight": (hidden,), "post_ffn_norm.weight": (hidden,)}
        has_experts = "num_experts" in config and i >= config["num_dense_layers"]
        layer |= _experts(config) if has_experts else gated("feed_forward", _width(config), hidden, MIXTRAL)
        shapes |= below(f"model.layers.{i}", layer)
    shapes["model.embedding_norm.weight"] = (hidden,)
    if not config.get("tie_embedding", config.get("tie_word_embeddings", True)):
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def convolutions_as_stored(tensors: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Weights of convolutions, a row of one for each channel."""
    return {name: v[:, None] if name.endswith("conv.conv.weight") else v for name, v in tensors.items()}


def _attention(config: Mapping[str, Any]) -> Shapes:
    hidden, heads, kv_heads = (config[f"{k}"] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    dim = config.get("head_dim") or hidden // heads
    matrices = {"q_proj": (heads * dim, hidden), "k_proj": (kv_heads * dim, hidden), "v_proj": (kv_heads * dim, hidden)}
    is_lfm3 = config["model_type"] == "lfm3"
    matrices |= {"o_proj" if is_lfm3 else "out_proj": (hidden, heads * dim)}
    shapes: Shapes = {f"self_attn.{name}.weight": shape for name, shape in matrices.items()}
    if config.get("attention_bias"):
        shapes |= {f"self_attn.{name}.bias": shape[:1] for name, shape in matrices.items()}
    if config.get("use_attention_gate"):
        shapes["self_attn.gate_proj.weight"] = (heads, hidden)
    return shapes | {f"self_attn.{p}_{'norm' if is_lfm3 else 'layernorm'}.weight": (dim,) for p in "qk"}


def _convolution(config: Mapping[str, Any]) -> Shapes:
    hidden = config["hidden_size"]
    rows = {"in_proj": (3 * hidden, hidden), "conv": (hidden, config["conv_L_cache"]), "out_proj": (hidden, hidden)}
    shapes: Shapes = {f"conv.{name}.weight": shape for name, shape in rows.items()}
    biases = {f"conv.{name}.bias": shape[:1] for name, shape in rows.items()} if config["conv_bias"] else {}
    return shapes | biases


def _width(config: Mapping[str, Any]) -> int:
    width = int(config.get("block_ff_dim") or config["intermediate_size"])
    if not config.get("block_auto_adjust_ff_dim", False):
        return width
    width, multiple = int(config["block_ffn_dim_multiplier"] * int(2 * width / 3)), config["block_multiple_of"]
    return int(-(-width // multiple) * multiple)


def _experts(config: Mapping[str, Any]) -> Shapes:
    hidden, count = config["hidden_size"], config["num_experts"]
    shapes: Shapes = {"feed_forward.gate.weight": (count, hidden)}
    shapes |= experts("feed_forward.experts", count, config["moe_intermediate_size"], hidden, MIXTRAL)
    return shapes | ({"feed_forward.expert_bias": (count,)} if config["use_expert_bias"] else {})
