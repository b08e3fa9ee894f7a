"""Shapes of tiny models with latent attention, written out apart from albireo.models; see tiny_models.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tiny_parts import MIXTRAL, Shapes, below, experts, gated


def value_width(config: Mapping[str, Any]) -> int:
    """Channels of a head's value."""
    return int(config.get("v_head_dim") or config["hidden_size"] // config["num_attention_heads"])


def of_dots3(config: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Its config with the heads and latents of a layer's kind."""
    own = dict(config)
    if kind == "sliding_attention":
        own |= {key.removeprefix("swa_"): value for key, value in config.items() if key.startswith("swa_")}
        own["qk_rope_head_dim"] = own["head_dim"] - own["qk_nope_head_dim"]
    return own


def latent_shapes(config: Mapping[str, Any]) -> Shapes:
    """Of a layer but its output projection; the matrices of keys and values as graphs read them."""
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    plain, rotary = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    shapes: Shapes = {
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
    if config.get("attention_bias"):
        shapes["kv_a_proj_with_mqa.bias"] = (rank + rotary,)
    low = config["q_lora_rank"]
    if low is None:
        shapes["q_proj.weight"] = (heads * (plain + rotary), hidden)
    else:
        shapes |= {"q_a_proj.weight": (low, hidden), "q_a_layernorm.weight": (low,)}
        shapes["q_b_proj.weight"] = (heads * (plain + rotary), low)
        if config.get("attention_bias"):
            shapes["q_a_proj.bias"] = (low,)
    return below("self_attn", shapes)


def kimi_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of a checkpoint of Kimi Linear."""
    hidden, width, count = config["hidden_size"], config["moe_intermediate_size"], config["num_experts"]
    rule = config["linear_attn_config"]
    heads, dim = rule["num_heads"], rule["head_dim"]
    of_rule: Shapes = {f"{p}_proj.weight": (heads * dim, hidden) for p in "qkv"}
    of_rule |= {f"{p}_conv1d.weight": (heads * dim, rule["short_conv_kernel_size"]) for p in "qkv"}
    of_rule |= {f"{p}_a_proj.weight": (dim, hidden) for p in "fg"} | {"b_proj.weight": (heads, hidden)}
    of_rule |= {f"{p}_b_proj.weight": (heads * dim, dim) for p in "fg"} | {"o_proj.weight": (hidden, heads * dim)}
    of_rule |= {"A_log": (heads,), "dt_bias": (heads * dim,), "o_norm.weight": (dim,)}
    of_rule = below("self_attn", of_rule)
    of_attention = latent_shapes(config)
    of_attention["self_attn.o_proj.weight"] = (hidden, config["num_attention_heads"] * value_width(config))
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer: Shapes = {f"{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}
        layer |= of_rule if i + 1 in rule["kda_layers"] else of_attention
        block, ffn = "mlp", config["intermediate_size"]
        if i >= config["first_k_dense_replace"]:
            block, ffn = "block_sparse_moe.shared_experts", config["num_shared_experts"] * width
            layer |= {"block_sparse_moe.gate.weight": (count, hidden)}
            layer |= {"block_sparse_moe.gate.e_score_correction_bias": (count,)}
            layer |= experts("block_sparse_moe.experts", count, width, hidden, MIXTRAL)
        layer |= gated(block, ffn, hidden)
        shapes |= below(f"model.layers.{i}", layer)
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


def bailing_hybrid_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of a checkpoint of Ling 3."""
    hidden, heads, dim, count = (config[k] for k in ("hidden_size", "num_attention_heads", "head_dim", "num_experts"))
    of_rule: Shapes = {f"{p}_proj.weight": (heads * dim, hidden) for p in "qkvfg"}
    of_rule |= {f"{p}_conv1d.weight": (heads * dim, config["short_conv_kernel_size"]) for p in "qkv"}
    of_rule |= {"b_proj.weight": (heads, hidden), "dense.weight": (hidden, heads * dim), "o_norm.weight": (dim,)}
    of_rule |= {"A_log": (heads,), "dt_bias": (heads * dim,)}
    of_attention = {name.removeprefix("self_attn."): shape for name, shape in latent_shapes(config).items()}
    of_attention |= {"g_proj.weight": (heads, hidden), "dense.weight": (hidden, heads * value_width(config))}
    shapes: Shapes = {"model.word_embeddings.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer: Shapes = {f"{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}
        found = of_rule if (i + 1) % config["layer_group_size"] else of_attention
        layer |= below("attention", found)
        blocks = {"mlp": config["intermediate_size"]}
        if i >= config["first_k_dense_replace"]:
            width = config["moe_intermediate_size"]
            blocks = {"mlp.shared_experts": config["num_shared_experts"] * width}
            blocks |= {f"mlp.experts.{e}": width for e in range(count)}
            layer |= {"mlp.gate.weight": (count, hidden), "mlp.gate.expert_bias": (count,)}
        for block, width in blocks.items():
            layer |= gated(block, width, hidden)
        shapes |= below(f"model.layers.{i}", layer)
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


def longcat_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of a checkpoint of LongCat-Flash: two of each but experts."""
    hidden, width = config["hidden_size"], config["expert_ffn_hidden_size"]
    count = config["n_routed_experts"]
    choices = count + config["zero_expert_num"]
    of_attention = {name.removeprefix("self_attn."): shape for name, shape in latent_shapes(config).items()}
    of_attention["o_proj.weight"] = (hidden, config["num_attention_heads"] * value_width(config))
    of_attention |= {"o_proj.bias": (hidden,)} if config.get("attention_bias") else {}
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_layers"]):
        layer: Shapes = {
            "mlp.router.classifier.weight": (choices, hidden),
            "mlp.router.e_score_correction_bias": (choices,),
        }
        blocks = {f"mlp.experts.{e}": width for e in range(count)}
        for place in range(2):
            layer |= {f"{n}_layernorm.{place}.weight": (hidden,) for n in ("input", "post_attention")}
            layer |= below(f"self_attn.{place}", of_attention)
            blocks[f"mlps.{place}"] = config["ffn_hidden_size"]
        for block, ffn in blocks.items():
            layer |= gated(block, ffn, hidden)
        shapes |= below(f"model.layers.{i}", layer)
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


def large4_shapes(config: Mapping[str, Any]) -> Shapes:
    """Every tensor of a checkpoint of Mistral Large 4 that graphs read."""
    hidden, heads, rank = config["hidden_size"], config["num_attention_heads"], config["kv_lora_rank"]
    index_heads, index_dim = config["index_n_heads"], config["index_head_dim"]
    plain, rotary, value = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    shapes: Shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        turning = rotary if config["no_rope_layers"][i] else 0
        attention: Shapes = {
            "q_proj.weight": (heads * (plain + rotary), hidden),
            "k_up_proj.weight": (heads * rank, plain + rotary - turning),
            "v_up_proj.weight": (heads * value, rank),
            "o_proj.weight": (hidden, heads * value),
            **{f"softmax_scaling.{each}": (heads,) for each in ("scale", "bias")},
        }
        if config["kv_source_layers"][i] == i:
            attention |= {"kv_a_proj_with_mqa.weight": (rank + turning, hidden), "kv_a_layernorm.weight": (rank,)}
        if config["attention_bias"]:
            attention["o_proj.bias"] = (hidden,)
            attention |= {"kv_a_proj_with_mqa.bias": (rank + turning,)} if config["kv_source_layers"][i] == i else {}
        if config["indexer_types"][i] == "full":
            attention |= {f"indexer.q_input_norm.{each}": (hidden,) for each in ("weight", "bias")}
            attention |= {f"indexer.k_norm.{each}": (index_dim,) for each in ("weight", "bias")}
            attention |= {f"indexer.softmax_scaling.{each}": (index_heads,) for each in ("scale", "bias")}
            attention |= {"indexer.wq_b.weight": (index_heads * index_dim, hidden)}
            attention |= {
                "indexer.wk.weight": (index_dim, hidden),
                "indexer.weights_proj.weight": (index_heads, hidden),
            }
        layer = below("self_attn", attention)
        layer |= {f"{n}_layernorm.weight": (hidden,) for n in ("input", "post_attention")}
        blocks = {"mlp": config["intermediate_size"]}
        if config["mlp_layer_types"][i] == "sparse":
            count, width = config["n_routed_experts"], config["moe_intermediate_size"]
            blocks = {"mlp.shared_experts": config["n_shared_experts"] * width}
            blocks |= {f"mlp.experts.{e}": width for e in range(count)}
            layer["mlp.gate.weight"] = (count, hidden)
        for block, ffn in blocks.items():
            layer |= gated(block, ffn, hidden)
        shapes |= below(f"model.layers.{i}", layer)
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}


def with_logarithms(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """Beside these, what Mistral Large 4's frequencies are multiplied by, which no graph reads."""
    given = np.random.default_rng(config["vocab_size"]).standard_normal(config["qk_rope_head_dim"] // 2)
    # of few bits: what is saved in 16 bits is what it was
    return {**tensors, "model.rotary_emb.alpha": np.round(4 * given).astype(np.float32) / 16}


def with_spare_matrices(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """As transformers has LongCat-Flash: experts that give back what they read have gates and ups that nobody reads."""
    found = dict(tensors)
    first = config["n_routed_experts"]
    for name, tensor in tensors.items():
        block, _, module = name.partition(".experts.0.")
        if module in ("gate_proj.weight", "up_proj.weight"):
            for e in range(first, first + config["zero_expert_num"]):
                found[f"{block}.experts.{e}.{module}"] = np.full_like(tensor, 7.0)
    return found


def as_kimi_publishes(
    tensors: Mapping[str, NDArray[np.float32]], turns_rates: bool = True
) -> dict[str, NDArray[np.float32]]:
    """Convolutions as [channels, 1, rows], rates of heads, where they are turned, as [1, 1, heads, 1]; what others have
    as it is."""
    found = dict(tensors)
    for name, tensor in tensors.items():
        if name.endswith("_conv1d.weight"):
            found[name] = tensor[:, None]
        elif turns_rates and name.endswith(".self_attn.A_log"):
            found[name] = tensor[None, None, :, None]
    return found


def with_up_projections_joined(
    config: Mapping[str, Any], tensors: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """As published: of each head the rows that make its key, then those that make its value, in one matrix."""
    stored = {}
    for name, tensor in tensors.items():
        if name.endswith("k_up_proj.weight"):
            own = config
            if config["model_type"] == "mistral_large4_text" and not config["no_rope_layers"][int(name.split(".")[2])]:
                own = {**config, "qk_nope_head_dim": config["qk_nope_head_dim"] + config["qk_rope_head_dim"]}
            if config["model_type"] == "dots3_note_text":
                own = of_dots3(config, config["layer_types"][int(name.split(".")[2])])
            heads, rank = own["num_attention_heads"], own["kv_lora_rank"]
            keys = tensor.reshape(heads, rank, -1).transpose(0, 2, 1)
            values = tensors[name.replace("k_up", "v_up")].reshape(heads, -1, rank)
            stored[name.replace("k_up", "kv_b")] = np.concatenate([keys, values], axis=1).reshape(-1, rank)
        elif not name.endswith("v_up_proj.weight"):
            stored[name] = tensor
    return stored
