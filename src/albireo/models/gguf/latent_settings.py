"""Settings of a GGUF file of a model with latent attention, as the keys that its config.json has.

Named by the tables. What llama.cpp knows of an architecture and writes into no file is written down here. Does not know
what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.mixture_settings import SIGMOID, SOFTMAX, check_scores, of_deepseek
from albireo.models.gguf.own_settings import long_contexts
from albireo.models.gguf.stored import MAX, Stored, by_layer, numbers_by_layer, optional_scale

#: expert_gating_func.
_ROOT_SOFTPLUS = 4


def deepseek2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """V2 where scores are those of a softmax, else V3, whose experts have a bias; Youtu where there are no experts.
    Files from before V3 do not say which scores."""
    rank, rotary = (fields.integer(key, 1, MAX) for key in ("attention.kv_lora_rank", "rope.dimension_count"))
    # files from before April 2025 have heads of expanded keys and values, which others call so
    key, value = (
        fields.raw(f"attention.{part}_length_mla") or fields.raw(f"attention.{part}_length")
        for part in ("key", "value")
    )
    for part in ("key", "value"):
        fields.raw(f"attention.{part}_length")
    own = {
        "kv_lora_rank": rank,
        "qk_rope_head_dim": rotary,
        "qk_nope_head_dim": key - rotary if isinstance(key, int) else key,
        "v_head_dim": value,
        "q_lora_rank": fields.optional_integer("attention.q_lora_rank", 1, MAX),
        "num_key_value_heads": None,
        "head_dim": None,
        "partial_rotary_factor": None,
        "rope_parameters": _latent_rope(fields, config["rope_parameters"]),
        "attention_bias": "model.layers.0.self_attn.kv_a_proj_with_mqa.bias" in file,
    }
    scores = fields.integer("expert_gating_func", 0, MAX, default=0)
    if not fields.raw("expert_count"):
        for key in ("expert_feed_forward_length", "expert_shared_count", "leading_dense_block_count"):
            fields.raw(key)  # of experts that there are none of
        return own | {"model_type": "youtu"}
    own |= of_deepseek(fields)
    if scores not in (0, SOFTMAX, SIGMOID):
        fields.unsupported("expert_gating_func", scores, f"supported: {SOFTMAX}, {SIGMOID}")
    has_bias = any(name.endswith(".e_score_correction_bias") for name in file.names)
    if scores == SIGMOID or (scores == 0 and has_bias):
        return own
    method = "group_limited_greedy" if own["n_group"] > 1 else "greedy"
    return own | {"model_type": "deepseek_v2", "topk_method": method}


def _latent_rope(fields: Fields, rope: Mapping[str, Any]) -> dict[str, Any]:
    """Queries and keys grow by a tenth of the logarithm of what positions are stretched by, times a factor; what is
    rotated does not: mscale is mscale_all_dim in every model there is."""
    tenth = fields.optional_number("rope.scaling.yarn_log_multiplier", 0.0, 1e3)
    if tenth is None or rope.get("rope_type") != "yarn":
        return dict(rope)
    return {**rope, "mscale": 10 * tenth, "mscale_all_dim": 10 * tenth}


def mistral4(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Mistral Small 4, whose experts are chosen by a softmax."""
    check_scores(fields, SOFTMAX)
    own = {key: value for key, value in deepseek2(fields, file, config).items() if key != "topk_method"}
    growth = optional_scale(fields, "attention.temperature_scale")
    rope = {"rope_type": "default", **own["rope_parameters"]}
    return own | {
        "model_type": "mistral4",
        "rope_parameters": rope | ({"llama_4_scaling_beta": growth} if growth else {}),
    }


def deepseek32(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSeek V3.2, which chooses what it sees."""
    return {
        **deepseek2(fields, file, config),
        "index_n_heads": fields.integer("attention.indexer.head_count", 1, MAX),
        "index_head_dim": fields.integer("attention.indexer.key_length", 1, MAX),
        "index_topk": fields.integer("attention.indexer.top_k", 1, MAX),
    }


def glm_dsa(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """GLM 5, some layers of which see what another has chosen."""
    own, layers = deepseek32(fields, file, config), config["num_hidden_layers"]
    chooses = [f"model.layers.{i}.self_attn.indexer.wk.weight" in file for i in range(layers)]
    said = fields.raw("attention.indexer.types")
    if said is not None and by_layer(fields, "attention.indexer.types", layers) != chooses:
        fields.fail("attention.indexer.types", said, f"contradicts the tensors: {chooses}")
    return own | {"indexer_types": ["full" if each else "shared" for each in chooses]}


def kimi_linear(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Kimi Linear: layers without heads of keys keep a state."""
    check_scores(fields, SIGMOID)
    fields.integer("expert_count", 1, MAX)  # deepseek2() would take it for Youtu
    heads = by_layer(fields, "attention.head_count_kv", config["num_hidden_layers"])
    latent = deepseek2(fields, file, config)
    rates = next((name for name in file.names if name.endswith(".self_attn.A_log")), "model.layers.0.self_attn.A_log")
    own = {
        key: latent[key]
        for key in ("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
    }
    own |= {
        "head_dim": None,
        "partial_rotary_factor": None,
        "rope_parameters": None,
        "num_key_value_heads": config["num_attention_heads"],
        "mla_use_nope": True,
        "linear_attn_config": {
            "full_attn_layers": [i + 1 for i, each in enumerate(heads) if each],
            "kda_layers": [i + 1 for i, each in enumerate(heads) if not each],
            "head_dim": fields.integer("kda.head_dim", 1, MAX),
            "num_heads": file.shape(rates)[0],
            "short_conv_kernel_size": fields.integer("ssm.conv_kernel", 1, MAX),
        },
    }
    names = {
        "num_experts": "n_routed_experts",
        "num_experts_per_token": "num_experts_per_tok",
        "moe_intermediate_size": "moe_intermediate_size",
        "num_shared_experts": "n_shared_experts",
        "first_k_dense_replace": "first_k_dense_replace",
        "num_expert_group": "n_group",
        "topk_group": "topk_group",
        "routed_scaling_factor": "routed_scaling_factor",
    }
    own |= {key: latent[known] for key, known in names.items()}
    return own | {"moe_renormalize": True, "moe_router_activation_func": "sigmoid"}


def minicpm3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """MiniCPM 3, whose multipliers no file says: there is one model."""
    rotary, key = fields.integer("rope.dimension_count", 1, MAX), fields.integer("attention.key_length", 1, MAX)
    fields.raw("attention.value_length")  # of latents, or nothing
    own: dict[str, Any] = {
        "q_lora_rank": fields.integer("attention.q_lora_rank", 1, MAX),
        "kv_lora_rank": fields.integer("attention.kv_lora_rank", 1, MAX),
        "qk_rope_head_dim": rotary,
        "qk_nope_head_dim": key - rotary,
        "scale_emb": 12.0,
        "scale_depth": 1.4,
        "dim_model_base": 256,
        "head_dim": None,
        "partial_rotary_factor": None,
    }
    return own | long_contexts(fields, file, config)


def deepseek4(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSeek V4. What a layer has beside its window is seen by its tensors, and of how many positions by a list."""
    layers, key = config["num_hidden_layers"], "attention.compress_ratios"
    scores = fields.integer("expert_gating_func", 0, MAX)
    if scores != _ROOT_SOFTPLUS:
        fields.unsupported("expert_gating_func", scores, f"supported: {_ROOT_SOFTPLUS}")
    said = fields.raw(key)
    ratios = by_layer(Fields({key: said[:layers] if isinstance(said, list) else said}, fields.where), key, layers)
    of_layer = [f"model.layers.{i}.self_attn.compressor" for i in range(layers)]
    chosen = [f"{name}.indexer.kv_norm.weight" in file for name in of_layer]
    pairs = zip(ratios, chosen, strict=True)
    kinds = [("compressed_sparse" if has else "heavily_compressed") if each else "sliding" for each, has in pairs]
    rates = {
        kind: {r for r, each in zip(ratios, kinds, strict=True) if each == kind} for kind in kinds if kind[0] != "s"
    }
    if any(len(each) > 1 for each in rates.values()):
        fields.unsupported(key, ratios, "layers of one kind must be alike")
    limits = {limit for of in ("exp", "shexp") for limit in _limits(fields, f"swiglu_clamp_{of}", layers)}
    if len(limits) != 1:
        fields.unsupported("swiglu_clamp_exp", sorted(limits), "one number for all layers, and for shared experts")
    hashed = [f"model.layers.{i}.mlp.gate.tid2eid" in file for i in range(layers)]
    for unused in ("hash_layer_count", "embedding_length_out", "feed_forward_length"):
        fields.raw(unused)  # which tensors show; of all streams; of FFNs that no layer has
    rope = {name: value for name, value in config["rope_parameters"].items() if name != "rope_theta"}
    return {
        "num_key_value_heads": fields.integer("attention.head_count_kv", 1, 1, default=1),
        "qk_rope_head_dim": round(config["partial_rotary_factor"] * config["head_dim"]),
        "partial_rotary_factor": None,
        "rope_parameters": None,
        "rope_scaling": rope or None,
        "rope_theta": config["rope_parameters"]["rope_theta"],
        "compress_rope_theta": fields.number("attention.compress_rope_freq_base", 1.0, 1e15),
        "q_lora_rank": fields.integer("attention.q_lora_rank", 1, MAX),
        "o_groups": fields.integer("attention.output_group_count", 1, MAX),
        "o_lora_rank": fields.integer("attention.output_lora_rank", 1, MAX),
        "layer_types": [f"{kind}_attention" for kind in kinds],
        "compress_rates": {f"{kind}_attention": min(each) for kind, each in rates.items()},
        "sliding_window": fields.integer("attention.sliding_window", 1, MAX),
        "index_topk": fields.integer("attention.indexer.top_k", 1, MAX),
        "index_n_heads": fields.integer("attention.indexer.head_count", 1, MAX),
        "index_head_dim": fields.integer("attention.indexer.key_length", 1, MAX),
        "n_routed_experts": fields.integer("expert_count", 1, MAX),
        "num_experts_per_tok": fields.integer("expert_used_count", 1, MAX),
        "moe_intermediate_size": fields.integer("expert_feed_forward_length", 1, MAX),
        "n_shared_experts": fields.integer("expert_shared_count", 1, MAX),
        "norm_topk_prob": fields.flag("expert_weights_norm", True),
        "routed_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
        "scoring_func": "sqrtsoftplus",
        "swiglu_limit": limits.pop(),
        "mlp_layer_types": ["hash_moe" if each else "moe" for each in hashed],
        "hc_mult": fields.integer("hyper_connection.count", 1, MAX),
        "hc_sinkhorn_iters": fields.integer("hyper_connection.sinkhorn_iterations", 1, MAX),
        "hc_eps": fields.number("hyper_connection.epsilon", 0.0, 1.0),
    }


def _limits(fields: Fields, key: str, layers: int) -> list[float]:
    """Of gates, of each layer; none where it is not said."""
    return [] if fields.raw(key) is None else numbers_by_layer(fields, key, layers)
