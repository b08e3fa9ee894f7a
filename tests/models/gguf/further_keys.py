"""The keys that llama.cpp's converters write of the architectures of further_conversions.py.

Written out here after set_gguf_parameters() in conversion/*.py of llama.cpp, independently of albireo.models.gguf.
"""

from __future__ import annotations

from typing import Any

from models.gguf import conversion_keys as k
from models.gguf.conversion_keys import Config


def rotated(c: Config) -> dict[str, Any]:
    return {"rope.dimension_count": k.head_dim_of(c)}


def states_alone(c: Config) -> dict[str, Any]:
    """MambaModel."""
    return {
        "context_length": 2**20,
        "feed_forward_length": 0,
        "attention.head_count": 0,
        "attention.layer_norm_epsilon": None,
        "attention.layer_norm_rms_epsilon": c["layer_norm_epsilon"],
        "ssm.conv_kernel": c["conv_kernel"],
        "ssm.inner_size": 2 * c["hidden_size"],
        "ssm.state_size": c["state_size"],
        "ssm.time_step_rank": c["time_step_rank"],
        "ssm.dt_b_c_rms": c["model_type"] == "falcon_mamba",
    }


def jamba_keys(c: Config) -> dict[str, Any]:
    attends = [i % c["attn_layer_period"] == c["attn_layer_offset"] for i in range(c["num_hidden_layers"])]
    return {
        "attention.head_count_kv": [c["num_key_value_heads"] if each else 0 for each in attends],
        "ssm.conv_kernel": c["mamba_d_conv"],
        "ssm.inner_size": c["mamba_expand"] * c["hidden_size"],
        "ssm.state_size": c["mamba_d_state"],
        "ssm.time_step_rank": c["mamba_dt_rank"],
    }


def mpt_keys(c: Config) -> dict[str, Any]:
    """Of MPTModel and DbrxModel, what both have."""
    return {
        "context_length": c["max_seq_len"],
        "embedding_length": c["d_model"],
        "block_count": c["n_layers"],
        "feed_forward_length": 4 * c["d_model"],
        "attention.head_count": c["n_heads"],
        "attention.layer_norm_epsilon": 1e-5,
    }


def dbrx_keys(c: Config) -> dict[str, Any]:
    ffn, attention = c["ffn_config"], c["attn_config"]
    return {
        **mpt_keys(c),
        "feed_forward_length": ffn["ffn_hidden_size"],
        "attention.head_count_kv": attention["kv_n_heads"],
        "rope.freq_base": attention["rope_theta"],
        "attention.clamp_kqv": attention["clip_qkv"],
        "expert_count": ffn["moe_num_experts"],
        "expert_used_count": ffn["moe_top_k"],
    }


def minicpm3_keys(c: Config) -> dict[str, Any]:
    return {
        "attention.q_lora_rank": c["q_lora_rank"],
        "attention.kv_lora_rank": c["kv_lora_rank"],
        "attention.key_length": c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
        "rope.dimension_count": c["qk_rope_head_dim"],
        "rope.freq_base": None,
    }


def phimoe_keys(c: Config) -> dict[str, Any]:
    """Phi3MiniModel and PhiMoeModel."""
    return {
        "rope.scaling.original_context_length": c["original_max_position_embeddings"],
        "rope.scaling.attn_factor": 1.0,
        "rope.dimension_count": k.head_dim_of(c),
        "attention.sliding_window": c["sliding_window"],
    }


def cohere_keys(c: Config) -> dict[str, Any]:
    """Cohere2MoeModel."""
    return {
        **k.window_keys(c),
        "logit_scale": c["logit_scale"],
        "feed_forward_length": c["prefix_dense_intermediate_size"],
        "expert_feed_forward_length": c["intermediate_size"],
        "leading_dense_block_count": c["mlp_layer_types"].count("dense"),
        "expert_weights_norm": c["norm_topk_prob"],
        "expert_shared_count": c["num_shared_experts"],
        "expert_shared_feed_forward_length": c["num_shared_experts"] * c["intermediate_size"],
        "expert_gating_func": 1,
        "rope.dimension_count": c["head_dim"],
        "rope.scaling.type": "none",
    }


def hy_v3_keys(c: Config) -> dict[str, Any]:
    return {
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_feed_forward_length": c["moe_intermediate_size"] * c["num_shared_experts"],
        "expert_weights_norm": True,
        "expert_weights_scale": c["router_scaling_factor"],
        "expert_gating_func": 2,
    }


def afmoe_keys(c: Config) -> dict[str, Any]:
    return {
        "expert_shared_count": c["num_shared_experts"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "leading_dense_block_count": c["num_dense_layers"],
        "expert_weights_scale": c["route_scale"],
        "expert_weights_norm": True,
        "attention.sliding_window": c["sliding_window"],
        "rope.dimension_count": c["head_dim"],
    }


def local_rope(c: Config) -> dict[str, Any]:
    return {"rope.freq_base_swa": c["rope_parameters"]["sliding_attention"]["rope_theta"]}


def part(c: Config, kind: str) -> int:
    return int(c["head_dim"] * c["rope_parameters"][kind]["partial_rotary_factor"])


def laguna_keys(c: Config) -> dict[str, Any]:
    return {
        **local_rope(c),
        "attention.head_count": c["num_attention_heads_per_layer"],
        "attention.sliding_window": c["sliding_window"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_feed_forward_length": c["shared_expert_intermediate_size"],
        "expert_weights_norm": True,
        "expert_weights_scale": c["moe_routed_scaling_factor"],
        "expert_gating_func": 2,
        "leading_dense_block_count": c["mlp_layer_types"].count("dense"),
        "rope.dimension_count": part(c, "full_attention"),
        "rope.dimension_count_swa": part(c, "sliding_attention"),
    }


def mimo_keys(c: Config) -> dict[str, Any]:
    """MimoV2Model, with an entry of three layers behind in lists."""
    local = [kind == "sliding_attention" for kind in c["layer_types"]] + [True] * 3
    return {
        **local_rope(c),
        "block_count": c["num_hidden_layers"] + 3,
        "nextn_predict_layers": 3,
        "attention.head_count_kv": [c["num_key_value_heads"] * (2 if each else 1) for each in local],
        "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": [int(each) for each in local],
        "attention.value_length": c["v_head_dim"],
        "attention.value_scale": c["attention_value_scale"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_gating_func": 2,
        "rope.dimension_count": part(c, "full_attention"),
    }


def step_keys(c: Config) -> dict[str, Any]:
    """Step35Model."""
    local = [kind == "sliding_attention" for kind in c["layer_types"]]
    return {
        **local_rope(c),
        "attention.head_count": [c["num_sliding_attention_heads" if each else "num_attention_heads"] for each in local],
        "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": local,
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_feed_forward_length": c["share_expert_dim"],
        "expert_weights_scale": c["moe_router_scaling_factor"],
        "expert_weights_norm": True,
        "leading_dense_block_count": 1,
        "moe_every_n_layers": 1,
        "swiglu_clamp_exp": [each or 0.0 for each in c["swiglu_limits"]],
        "swiglu_clamp_shexp": [each or 0.0 for each in c["swiglu_limits_shared"]],
    }


def minimax_keys(c: Config) -> dict[str, Any]:
    """MiniMaxM3Model."""
    return {
        "feed_forward_length": c["dense_intermediate_size"],
        "expert_feed_forward_length": c["intermediate_size"],
        "expert_gating_func": 2,
        "rope.dimension_count": c["rotary_dim"],
        "expert_shared_count": 1,
        "expert_weights_scale": c["routed_scaling_factor"],
        "expert_weights_norm": True,
        "attention.indexer.head_count": c["index_n_heads"],
        "attention.indexer.key_length": c["index_head_dim"],
        "attention.indexer.top_k": c["index_topk_blocks"],
        "attention.indexer.block_size": c["index_block_size"],
        "attention.indexer.local_blocks": c["index_local_blocks"],
        "leading_dense_block_count": 1,
    }


def dsa_keys(c: Config) -> dict[str, Any]:
    """DeepseekV32Model and GlmMoeDsaModel."""
    keys = k.deepseek_keys({"rope_scaling": {"mscale_all_dim": 0.0}, **c})
    if "rope_scaling" not in c:
        del keys["rope.scaling.yarn_log_multiplier"]
    keys |= {f"attention.indexer.{key}": c[f"index_{name}"] for key, name in _INDEX.items()}
    if "indexer_types" in c:
        keys["attention.indexer.types"] = [kind == "full" for kind in c["indexer_types"]]
    return {**keys, "expert_gating_func": 2}


_INDEX = {"head_count": "n_heads", "key_length": "head_dim", "top_k": "topk"}


def mistral4_keys(c: Config) -> dict[str, Any]:
    keys = k.deepseek_keys({**c, "rope_scaling": c["rope_parameters"]})
    return {**keys, "attention.temperature_scale": c["rope_parameters"]["llama_4_scaling_beta"]}


def kimi_keys(c: Config) -> dict[str, Any]:
    """KimiLinearModel."""
    rule = c["linear_attn_config"]
    keys = k.deepseek_keys(
        {
            **c,
            "n_shared_experts": c["num_shared_experts"],
            "norm_topk_prob": True,
            "rope_scaling": {"mscale_all_dim": 0.0},
        }
    )
    del keys["rope.scaling.yarn_log_multiplier"], keys["expert_weights_norm"]
    attends = [i + 1 in rule["full_attn_layers"] for i in range(c["num_hidden_layers"])]
    return {
        **keys,
        "context_length": c["model_max_length"],
        "attention.head_count_kv": [int(each) for each in attends],
        "attention.value_length": None,
        "ssm.conv_kernel": rule["short_conv_kernel_size"],
        "kda.head_dim": rule["head_dim"],
        "expert_used_count": c["num_experts_per_token"],
        "expert_gating_func": 2,
        "expert_group_count": None,
    }


def mellum_keys(c: Config) -> dict[str, Any]:
    return {**local_rope(c), **k.window_keys(c), "expert_feed_forward_length": c["moe_intermediate_size"]}


def decilm_keys(c: Config) -> dict[str, Any]:
    blocks, heads = c["block_configs"], c["num_attention_heads"]
    groups = [each["attention"]["n_heads_in_group"] for each in blocks]
    return {
        "attention.head_count": [heads if group else 0 for group in groups],
        "attention.head_count_kv": [heads // group if group else 0 for group in groups],
        # the next multiple of 256 of two thirds
        "feed_forward_length": [0 if each["ffn"]["no_op"] else 256 for each in blocks],
        "rope.dimension_count": c["head_dim"],
        "vocab_size": c["vocab_size"],
    }


def granite_swa_keys(c: Config) -> dict[str, Any]:
    keys = {**k.granite_keys(c), **k.window_keys(c)}
    keys["attention.rope_pattern"] = [bool(each) for each in c["layer_rope_theta"]]
    shared = c.get("shared_intermediate_size")
    return keys | ({"expert_shared_feed_forward_length": shared} if shared else {})


def hrm_keys(c: Config) -> dict[str, Any]:
    """HrmTextModel."""
    return {
        **rotated(c),
        "embedding_scale": c["embedding_scale"],
        "hrm.layers_per_stack": c["num_layers_per_stack"],
        "hrm.h_cycles": c["H_cycles"],
        "hrm.l_cycles": c["L_cycles"],
        "hrm.prefix_lm": c["prefix_lm"],
    }


def v4_keys(c: Config) -> dict[str, Any]:
    """DeepseekV4Model."""
    rates = {"sliding_attention": 0, **c["compress_rates"]}
    return {
        "feed_forward_length": None,
        "expert_group_count": None,
        "rope.dimension_count": c["qk_rope_head_dim"],
        "attention.q_lora_rank": c["q_lora_rank"],
        "attention.sliding_window": c["sliding_window"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_count": c["n_shared_experts"],
        "expert_weights_scale": c["routed_scaling_factor"],
        "expert_weights_norm": c["norm_topk_prob"],
        "expert_gating_func": 4,
        "swiglu_clamp_exp": [c["swiglu_limit"]] * c["num_hidden_layers"],
        "swiglu_clamp_shexp": [c["swiglu_limit"]] * c["num_hidden_layers"],
        "attention.indexer.head_count": c["index_n_heads"],
        "attention.indexer.key_length": c["index_head_dim"],
        "attention.indexer.top_k": c["index_topk"],
        "attention.output_group_count": c["o_groups"],
        "attention.output_lora_rank": c["o_lora_rank"],
        # with one of a layer behind
        "attention.compress_ratios": [*(rates[kind] for kind in c["layer_types"]), 0],
        "attention.compress_rope_freq_base": c["compress_rope_theta"],
        "hyper_connection.count": c["hc_mult"],
        "hyper_connection.sinkhorn_iterations": c["hc_sinkhorn_iters"],
        "hyper_connection.epsilon": c["hc_eps"],
        "hash_layer_count": 1,
        "embedding_length_out": c["hidden_size"] * c["hc_mult"],
    }
