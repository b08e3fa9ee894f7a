"""Settings of a GGUF file of a mixture of experts whose layers differ in heads, windows and rotations, as the keys that
its config.json has.

Named by the tables. What llama.cpp knows of an architecture and writes into no file is written down here. Does not know
what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.mixture_settings import SIGMOID, check_scores, counts, kinds_of_ffn
from albireo.models.gguf.own_settings import layer_types
from albireo.models.gguf.stored import MAX, Stored, by_layer, numbers_by_layer, optional_scale, rows_of, window_of

_SLIDING = "sliding_attention"


def laguna(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Laguna. Where nothing says which layers have a window, the first of four has none."""
    check_scores(fields, SIGMOID)
    layers, window = config["num_hidden_layers"], window_of(fields)
    heads = by_layer(fields, "attention.head_count", layers)
    if fields.raw("attention.sliding_window_pattern") is not None:
        kinds = layer_types(fields, config, 4)["layer_types"]
    else:
        kinds = [_SLIDING if i % 4 else "full_attention" for i in range(layers)]
    kinds = kinds if window else ["full_attention"] * layers
    rows = file.shape("model.layers.0.self_attn.g_proj.weight")[0]
    fields.raw("expert_shared_count")  # of which there is one, whose width is said
    if not fields.flag("expert_weights_norm", True):
        fields.unsupported("expert_weights_norm", False, "supported: true")
    fields.raw("leading_dense_block_count")
    return {
        **_mixture(fields, config),
        "num_attention_heads": heads[0],
        "num_attention_heads_per_layer": heads,
        "gating": True if rows == heads[0] else "per-element",
        "layer_types": kinds,
        "sliding_window": window or 512,
        "mlp_layer_types": kinds_of_ffn(file, config, "mlp.gate"),
        "shared_expert_intermediate_size": fields.integer("expert_shared_feed_forward_length", 1, MAX),
        "moe_routed_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
        **_rotations(fields, config, config["partial_rotary_factor"]),
    }


def _mixture(fields: Fields, config: Mapping[str, Any]) -> dict[str, Any]:
    count = counts(fields)
    return {
        "num_experts": count["num_local_experts"],
        "num_experts_per_tok": count["num_experts_per_tok"],
        "moe_intermediate_size": fields.integer("expert_feed_forward_length", 1, MAX),
    }


def _rotations(fields: Fields, config: Mapping[str, Any], part: float) -> dict[str, Any]:
    """Of both kinds of layers. Args: part: of a head's channels that rotates where there is no window."""
    full, head_dim = config["rope_parameters"], config["head_dim"]
    theta = fields.number("rope.freq_base_swa", 1.0, 1e15, default=full["rope_theta"])
    local = fields.integer(
        "rope.dimension_count_swa", 1, MAX, default=round(config["partial_rotary_factor"] * head_dim)
    )
    return {
        "partial_rotary_factor": None,
        "rope_parameters": {
            "full_attention": {"rope_type": "default", **full, "partial_rotary_factor": part},
            _SLIDING: {"rope_type": "default", "rope_theta": theta, "partial_rotary_factor": local / head_dim},
        },
    }


def mellum(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Mellum 2."""
    window, layers = window_of(fields), config["num_hidden_layers"]
    kinds = layer_types(fields, config, 4)["layer_types"] if window else ["full_attention"] * layers
    return {
        **_mixture(fields, config),
        "norm_topk_prob": True,
        "layer_types": kinds,
        "sliding_window": window or 1024,
        "mlp_layer_types": kinds_of_ffn(file, config, "mlp.gate"),
        **_rotations(fields, config, 1.0),
    }


def mimo(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """MiMo V2 Flash and its kin, whose layers with a window have KV heads of their own."""
    check_scores(fields, SIGMOID)
    layers, key = config["num_hidden_layers"], "attention.head_count_kv"
    kinds, heads = layer_types(fields, config, 1)["layer_types"], by_layer(fields, key, layers)
    of_kind = {kind: {n for n, each in zip(heads, kinds, strict=True) if each == kind} for kind in set(kinds)}
    if any(len(each) > 1 for each in of_kind.values()):
        fields.unsupported(key, heads, "layers with a window, and those without, must be alike")
    local, full = (next(iter(of_kind.get(kind, {heads[0]}))) for kind in (_SLIDING, "full_attention"))
    mixture = _mixture(fields, config)
    for each, wanted in (("expert_weights_norm", True), ("expert_group_count", 1), ("expert_group_used_count", 1)):
        if fields.raw(each) not in (None, wanted):
            fields.unsupported(each, fields.raw(each), f"supported: {wanted}")
    fields.raw("leading_dense_block_count")
    return {
        "n_routed_experts": mixture.pop("num_experts"),
        **mixture,
        "intermediate_size": fields.integer("feed_forward_length", 1, MAX),
        "num_key_value_heads": full,
        "swa_num_key_value_heads": local,
        "v_head_dim": fields.integer("attention.value_length", 1, MAX, default=config["head_dim"]),
        "attention_value_scale": fields.number("attention.value_scale", 1e-6, 1e6, default=1.0),
        "layer_types": kinds,
        "sliding_window": window_of(fields),
        "mlp_layer_types": kinds_of_ffn(file, config, "mlp.gate"),
        "norm_topk_prob": True,
        "routed_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
        **_rotations(fields, config, config["partial_rotary_factor"]),
    }


def step(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Step 3.5 and 3.7: layers without a window rotate half of what is said."""
    check_scores(fields, SIGMOID)
    layers, key = config["num_hidden_layers"], "attention.head_count"
    kinds, heads = layer_types(fields, config, 1)["layer_types"], by_layer(fields, key, layers)
    of_kind = {kind: {n for n, each in zip(heads, kinds, strict=True) if each == kind} for kind in set(kinds)}
    if any(len(each) > 1 for each in of_kind.values()):
        fields.unsupported(key, heads, "layers with a window, and those without, must be alike")
    local, full = (next(iter(of_kind.get(kind, {heads[0]}))) for kind in (_SLIDING, "full_attention"))
    mixture, part = _mixture(fields, config), config["partial_rotary_factor"] / 2
    for each, wanted in (("expert_weights_norm", True), ("moe_every_n_layers", 1)):
        if fields.raw(each) not in (None, wanted):
            fields.unsupported(each, fields.raw(each), f"supported: {wanted}")
    fields.raw("leading_dense_block_count")
    rope = _rotations(fields, config, part)
    if (factors := rope["rope_parameters"]["full_attention"].get("freq_factors")) is not None:
        rotated = round(config["head_dim"] * part)
        rope["rope_parameters"]["full_attention"]["freq_factors"] = factors[: rotated // 2]
    return {
        "n_routed_experts": mixture.pop("num_experts"),
        **mixture,
        "num_attention_heads": full,
        "num_sliding_attention_heads": local,
        "layer_types": kinds,
        "sliding_window": window_of(fields),
        "mlp_layer_types": kinds_of_ffn(file, config, "mlp.gate"),
        "share_expert_dim": fields.integer("expert_shared_feed_forward_length", 1, MAX),
        "moe_router_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
        **_limits(fields, layers),
        **rope,
    }


def _limits(fields: Fields, layers: int) -> dict[str, Any]:
    """Of gates: of experts, and of shared ones and dense layers; files have those of layers behind, too."""
    found = {}
    for name, key in (("swiglu_limits", "swiglu_clamp_exp"), ("swiglu_limits_shared", "swiglu_clamp_shexp")):
        value = fields.raw(key)
        if value is not None:
            count = len(value) if isinstance(value, list) else layers
            found[name] = numbers_by_layer(fields, key, max(count, layers))[:layers]
    return found


def minimax_m3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """MiniMax M3, whose layers choose blocks of what they see."""
    check_scores(fields, SIGMOID)
    if fields.integer("expert_shared_count", 1, MAX, default=1) != 1:
        fields.unsupported("expert_shared_count", fields.raw("expert_shared_count"), "supported: 1")
    if not fields.flag("expert_weights_norm", True):
        fields.unsupported("expert_weights_norm", False, "supported: true")
    fields.raw("leading_dense_block_count")
    chooses = [f"model.layers.{i}.self_attn.index_q_proj.weight" in file for i in range(config["num_hidden_layers"])]
    mixture = _mixture(fields, config)
    return {
        "num_local_experts": mixture["num_experts"],
        "num_experts_per_tok": mixture["num_experts_per_tok"],
        "intermediate_size": mixture["moe_intermediate_size"],
        "dense_intermediate_size": config["intermediate_size"],
        "shared_intermediate_size": rows_of(file, ".shared_experts.up_proj.weight"),
        "routed_scaling_factor": optional_scale(fields, "expert_weights_scale") or 1.0,
        "layer_types": ["minimax_m3_sparse" if each else "full_attention" for each in chooses],
        "mlp_layer_types": kinds_of_ffn(file, config, "block_sparse_moe.gate"),
        "rotary_dim": round(config["partial_rotary_factor"] * config["head_dim"]),
        "index_n_heads": fields.integer("attention.indexer.head_count", 1, MAX),
        "index_head_dim": fields.integer("attention.indexer.key_length", 1, MAX),
        "index_topk_blocks": fields.integer("attention.indexer.top_k", 1, MAX),
        "index_block_size": fields.integer("attention.indexer.block_size", 1, MAX),
        "index_local_blocks": fields.integer("attention.indexer.local_blocks", 0, MAX),
    }
