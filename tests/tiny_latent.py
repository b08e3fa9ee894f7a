"""Shapes of tiny models with latent attention, written out apart from albireo.models; see tiny_models.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def value_width(config: Mapping[str, Any]) -> int:
    """Channels of a head's value."""
    return int(config.get("v_head_dim") or config["hidden_size"] // config["num_attention_heads"])


def latent_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Of a layer but its output projection; the matrices of keys and values as graphs read them."""
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    plain, rotary = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    shapes: dict[str, tuple[int, ...]] = {
        "kv_a_proj_with_mqa.weight": (rank + rotary, hidden),
        "kv_a_layernorm.weight": (rank,),
        "k_up_proj.weight": (heads * rank, plain),
        "v_up_proj.weight": (heads * value_width(config), rank),
    }
    if "index_topk" in config:
        index_heads, index_dim = config["index_n_heads"], config["index_head_dim"]
        shapes["indexer.wq_b.weight"] = (index_heads * index_dim, config["q_lora_rank"])
        shapes |= {"indexer.wk.weight": (index_dim, hidden), "indexer.weights_proj.weight": (index_heads, hidden)}
        shapes |= {"indexer.k_norm.weight": (index_dim,), "indexer.k_norm.bias": (index_dim,)}
    if config["attention_bias"]:
        shapes["kv_a_proj_with_mqa.bias"] = (rank + rotary,)
    low = config["q_lora_rank"]
    if low is None:
        shapes["q_proj.weight"] = (heads * (plain + rotary), hidden)
    else:
        shapes |= {"q_a_proj.weight": (low, hidden), "q_a_layernorm.weight": (low,)}
        shapes["q_b_proj.weight"] = (heads * (plain + rotary), low)
        if config["attention_bias"]:
            shapes["q_a_proj.bias"] = (low,)
    return {f"self_attn.{name}": shape for name, shape in shapes.items()}


def with_up_projections_joined(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """As published: of each head the rows that make its key, then those that make its value, in one matrix."""
    heads, rank = config["num_attention_heads"], config["kv_lora_rank"]
    stored = {}
    for name, tensor in tensors.items():
        if name.endswith("k_up_proj.weight"):
            keys = tensor.reshape(heads, rank, -1).transpose(0, 2, 1)
            values = tensors[name.replace("k_up", "v_up")].reshape(heads, -1, rank)
            stored[name.replace("k_up", "kv_b")] = np.concatenate([keys, values], axis=1).reshape(-1, rank)
        elif not name.endswith("v_up_proj.weight"):
            stored[name] = tensor
    return stored
