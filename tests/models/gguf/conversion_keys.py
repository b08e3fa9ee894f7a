"""The keys that llama.cpp's converters write of a config.json, without the architecture's name before them.

Used by conversions.py. Written out here after set_gguf_parameters() in conversion/*.py of llama.cpp, independently of
albireo.models.gguf.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

Config = Mapping[str, Any]


def common_keys(c: Config) -> dict[str, Any]:
    """TextModel.set_gguf_parameters()."""
    keys: dict[str, Any] = {}
    names = {
        "block_count": ("num_hidden_layers", "n_layer"),
        "context_length": ("max_position_embeddings", "n_positions"),
        "embedding_length": ("hidden_size", "n_embd"),
        "feed_forward_length": ("intermediate_size",),
        "attention.head_count": ("num_attention_heads", "n_head"),
        "attention.head_count_kv": ("num_key_value_heads",),
        "attention.layer_norm_rms_epsilon": ("rms_norm_eps", "norm_eps"),
        "attention.layer_norm_epsilon": ("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
        "expert_count": ("num_local_experts", "num_experts", "n_routed_experts"),
        "expert_used_count": ("num_experts_per_tok", "top_k_experts"),
        "expert_group_count": ("n_group",),
        "expert_group_used_count": ("topk_group",),
        "attention.key_length": ("head_dim",),
        "attention.value_length": ("head_dim",),
    }
    for key, candidates in names.items():
        found = [c[name] for name in candidates if c.get(name) is not None]
        keys |= {key: found[0]} if found else {}
    if "scoring_func" in c:
        keys["expert_gating_func"] = {"softmax": 1, "sigmoid": 2}[c["scoring_func"]]
    rope = {**(c.get("rope_parameters") or {}), **(c.get("rope_scaling") or {})}
    rope = rope.get("full_attention", rope)
    theta = rope.get("rope_theta", c.get("rope_theta"))
    keys |= {} if theta is None else {"rope.freq_base": float(theta)}
    if rope.get("rope_type", rope.get("type")) == "yarn":
        keys |= {"rope.scaling.type": "yarn", "rope.scaling.factor": rope["factor"]}
        keys["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        betas = {f"rope.scaling.yarn_{name}": float(rope[name]) for name in ("beta_fast", "beta_slow") if name in rope}
        keys |= betas
    return keys


def head_dim_of(c: Config) -> int:
    return int(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])


def rotated_of(c: Config) -> int:
    part = (c.get("rope_parameters") or {}).get("partial_rotary_factor") or c.get("partial_rotary_factor")
    return int(head_dim_of(c) * part)


def expert_keys(c: Config) -> dict[str, Any]:
    """Of DeepSeek and its like."""
    return {
        "leading_dense_block_count": c["first_k_dense_replace"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_count": c["n_shared_experts"],
        "expert_weights_scale": c["routed_scaling_factor"],
        "expert_weights_norm": c["norm_topk_prob"],
    }


def hunyuan_keys(c: Config) -> dict[str, Any]:
    """HunYuanModel: the base of the rotation as it is stretched."""
    width = head_dim_of(c)
    theta = c["rope_theta"] * c["rope_scaling"]["alpha"] ** (width / (width - 2))
    scaling = {"rope.scaling.type": "none", "rope.scaling.factor": 1.0, "rope.scaling.original_context_length": 262144}
    return {**scaling, "rope.freq_base": theta}


def hunyuan_moe_keys(c: Config) -> dict[str, Any]:
    """HunYuanMoEModel."""
    return {
        "expert_shared_feed_forward_length": c["intermediate_size"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_used_count": c["moe_topk"],
        "expert_shared_count": c["num_shared_expert"],
    }


def exaone_moe_keys(c: Config) -> dict[str, Any]:
    """ExaoneMoEModel."""
    shared, width = c["num_shared_experts"], c["moe_intermediate_size"]
    keys = expert_keys({**c, "n_shared_experts": shared}) | window_keys(c)
    return {**keys, "expert_shared_feed_forward_length": shared * width, "rope.scaling.type": "none"}


def ling_keys(c: Config) -> dict[str, Any]:
    """BailingMoeV2Model."""
    keys = expert_keys({**c, "n_shared_experts": c["num_shared_experts"]})
    keys |= {"expert_shared_feed_forward_length": c["moe_intermediate_size"] * c["num_shared_experts"]}
    return {**keys, "rope.dimension_count": rotated_of(c), "vocab_size": c["vocab_size"]}


def llama4_keys(c: Config) -> dict[str, Any]:
    """Llama4Model."""
    return {
        "feed_forward_length": c["intermediate_size_mlp"],
        "expert_feed_forward_length": c["intermediate_size"],
        "interleave_moe_layer_step": c["interleave_moe_layer_step"],
        "rope.dimension_count": head_dim_of(c),
    }


def minicpm_keys(c: Config) -> dict[str, Any]:
    """MiniCPMModel."""
    keys = {
        "embedding_scale": c["scale_emb"],
        "residual_scale": c["scale_depth"] / c["num_hidden_layers"] ** 0.5,
        "logit_scale": c["hidden_size"] / c["dim_model_base"],
    }
    return keys | ({"rope.scaling.type": "longrope"} if c.get("rope_scaling") else {})


def glm4_moe_keys(c: Config) -> dict[str, Any]:
    """Glm4MoeModel."""
    return {**expert_keys(c), "expert_gating_func": 2, "rope.dimension_count": rotated_of(c)}


def gated_delta_keys(c: Config) -> dict[str, Any]:
    """Qwen3NextModel.set_gguf_parameters()."""
    keys = {
        "ssm.conv_kernel": c["linear_conv_kernel_dim"],
        "ssm.state_size": c["linear_key_head_dim"],
        "ssm.group_count": c["linear_num_key_heads"],
        "ssm.time_step_rank": c["linear_num_value_heads"],
        "ssm.inner_size": c["linear_value_head_dim"] * c["linear_num_value_heads"],
        "attention.recurrent_layers": [kind == "linear_attention" for kind in c["layer_types"]],
        "full_attention_interval": c.get("full_attention_interval", 4),
        "rope.dimension_count": rotated_of(c),
    }
    if "num_experts" in c:
        keys["expert_feed_forward_length"] = c["moe_intermediate_size"]
        keys["expert_shared_feed_forward_length"] = c["shared_expert_intermediate_size"]
    if c["model_type"] != "qwen3_next":
        keys["rope.dimension_sections"] = [11, 11, 10, 0]
    return keys


def short_conv_keys(c: Config) -> dict[str, Any]:
    """LFM2Model and LFM2MoeModel."""
    kinds = [kind == "full_attention" for kind in c["layer_types"]]
    keys = {
        "attention.head_count_kv": [c["num_key_value_heads"] if attends else 0 for attends in kinds],
        "shortconv.l_cache": c["conv_L_cache"],
        "vocab_size": c["vocab_size"],
    }
    if "num_experts" not in c:
        width, multiple = int(2 * c["block_ff_dim"] / 3), c["block_multiple_of"]
        return {**keys, "feed_forward_length": -(-width // multiple) * multiple}
    return {
        **keys,
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "leading_dense_block_count": c["num_dense_layers"],
        "expert_gating_func": 2,
    }


def granite_keys(c: Config) -> dict[str, Any]:
    return {
        "attention.scale": c["attention_multiplier"],
        "embedding_scale": c["embedding_multiplier"],
        "residual_scale": c["residual_multiplier"],
        "logit_scale": c["logits_scaling"],
        "rope.dimension_count": head_dim_of(c),
        "vocab_size": c["vocab_size"],
    }


def granite_hybrid_keys(c: Config) -> dict[str, Any]:
    """GraniteHybridModel."""
    is_mixture = c["num_local_experts"] > 0
    return {
        **granite_keys(c),
        "context_length": 2**20,
        "expert_used_count": c["num_experts_per_tok"] if is_mixture else 0,
        "expert_shared_feed_forward_length": c["shared_intermediate_size"],
        "ssm.conv_kernel": c["mamba_d_conv"],
        "ssm.state_size": c["mamba_d_state"],
        "ssm.group_count": c["mamba_n_groups"],
        "ssm.inner_size": c["mamba_expand"] * c["hidden_size"],
        "ssm.time_step_rank": c["mamba_n_heads"],
        "attention.head_count_kv": [c["num_key_value_heads"] if k == "attention" else 0 for k in c["layer_types"]],
        "rope.scaling.finetuned": False,
    }


def falcon_h1_keys(c: Config) -> dict[str, Any]:
    """FalconH1Model."""
    return {
        "rope.freq_base": c["rope_theta"],
        "vocab_size": c["vocab_size"],
        "ssm.conv_kernel": c["mamba_d_conv"],
        "ssm.state_size": c["mamba_d_state"],
        "ssm.group_count": c["mamba_n_groups"],
        "ssm.inner_size": c["mamba_d_ssm"],
        "ssm.time_step_rank": c["mamba_n_heads"],
    }


def mamba2_keys(c: Config) -> dict[str, Any]:
    """Mamba2Model."""
    return {
        "context_length": 2**20,
        "attention.head_count": 0,
        "feed_forward_length": 0,
        "attention.key_length": None,
        "attention.value_length": None,
        "attention.layer_norm_rms_epsilon": c["layer_norm_epsilon"],
        "attention.layer_norm_epsilon": None,
        "ssm.conv_kernel": c["conv_kernel"],
        "ssm.state_size": c["state_size"],
        "ssm.group_count": c["n_groups"],
        "ssm.inner_size": c["num_heads"] * c["head_dim"],
        "ssm.time_step_rank": c["num_heads"],
        "expert_group_count": None,
    }


def nemotron_keys(c: Config) -> dict[str, Any]:
    """NemotronHModel."""
    letters = c["hybrid_override_pattern"]
    is_mixture = "num_experts_per_tok" in c
    width, letter = (c["moe_intermediate_size"], "E") if is_mixture else (c["intermediate_size"], "-")
    keys = {
        "context_length": 2**20,
        "attention.head_count_kv": [c["num_key_value_heads"] if each == "*" else 0 for each in letters],
        "feed_forward_length": [width if each == letter else 0 for each in letters],
        "rope.dimension_count": c["head_dim"],
        "rope.scaling.finetuned": False,
        "ssm.conv_kernel": c["conv_kernel"],
        "ssm.state_size": c["ssm_state_size"],
        "ssm.group_count": c["n_groups"],
        "ssm.inner_size": c["mamba_num_heads"] * c["mamba_head_dim"],
        "ssm.time_step_rank": c["mamba_num_heads"],
    }
    if not is_mixture:
        return keys
    of_experts = {
        key: value for key, value in expert_keys({**c, "first_k_dense_replace": 0}).items() if "dense" not in key
    }
    return {
        **keys,
        **of_experts,
        "expert_shared_feed_forward_length": c["moe_shared_expert_intermediate_size"],
        "moe_latent_size": c.get("moe_latent_size"),
    }


def deepseek_keys(c: Config) -> dict[str, Any]:
    """DeepseekV2Model."""
    rank, rotary = c["kv_lora_rank"], c["qk_rope_head_dim"]
    keys = {
        **expert_keys(c),
        "attention.head_count_kv": 1,
        "attention.kv_lora_rank": rank,
        "attention.key_length": rank + rotary,
        "attention.value_length": rank,
        "attention.key_length_mla": c["qk_nope_head_dim"] + rotary,
        "attention.value_length_mla": c["v_head_dim"],
        "rope.dimension_count": rotary,
        "rope.scaling.yarn_log_multiplier": 0.1 * c["rope_scaling"]["mscale_all_dim"],
    }
    return keys | ({"attention.q_lora_rank": c["q_lora_rank"]} if c["q_lora_rank"] else {})


def youtu_keys(c: Config) -> dict[str, Any]:
    """The same without experts."""
    experts = {"first_k_dense_replace": c["num_hidden_layers"], "moe_intermediate_size": c["intermediate_size"]}
    yarn = {"rope_scaling": {"mscale_all_dim": 0.0}, "n_shared_experts": 0}
    keys = deepseek_keys({**c, **experts, **yarn, "routed_scaling_factor": None, "norm_topk_prob": None})
    return {key: value for key, value in keys.items() if value is not None and "yarn" not in key}


def older_deepseek_keys(c: Config) -> dict[str, Any]:
    """As before April 2025: heads of keys and values."""
    keys = {key: value for key, value in deepseek_keys(c).items() if not key.endswith("_mla")}
    keys |= {"attention.key_length": c["qk_nope_head_dim"] + c["qk_rope_head_dim"]}
    return keys | {"attention.value_length": c["v_head_dim"], "attention.head_count_kv": c["num_attention_heads"]}


def mistral3_keys(c: Config) -> dict[str, Any]:
    """Ministral3Model, a LlamaModel."""
    rope, keys = c.get("rope_parameters") or {}, {"rope.dimension_count": head_dim_of(c), "vocab_size": c["vocab_size"]}
    if c["model_type"] != "ministral3":
        return keys
    growth = {"attention.temperature_scale": rope["llama_4_scaling_beta"]}
    return {**keys, **growth, "rope.scaling.yarn_log_multiplier": rope["mscale_all_dim"]}


def qwen3_vl_keys(c: Config) -> dict[str, Any]:
    """Qwen3VLTextModel and Qwen3VLMoeTextModel."""
    keys = {"rope.dimension_sections": [24, 20, 20, 0], "n_deepstack_layers": 3}
    return keys | ({"expert_feed_forward_length": c["moe_intermediate_size"]} if "num_experts" in c else {})


def chatglm_keys(c: Config) -> dict[str, Any]:
    """ChatGLMModel."""
    return {"rope.dimension_count": rotated_of(c), "attention.key_length": None, "attention.value_length": None}


def ernie_keys(c: Config) -> dict[str, Any]:
    """Ernie4_5MoeModel."""
    return {
        "expert_count": c["moe_num_experts"],
        "expert_used_count": c["moe_k"],
        "interleave_moe_layer_step": c["moe_layer_interval"],
        "leading_dense_block_count": c["moe_layer_start_index"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_count": c["moe_num_shared_experts"],
        "expert_shared_feed_forward_length": c["intermediate_size"] // c["num_key_value_heads"],
    }


def window_keys(c: Config) -> dict[str, Any]:
    keys = {"attention.sliding_window": c["sliding_window"]}
    return keys | {"attention.sliding_window_pattern": [kind == "sliding_attention" for kind in c["layer_types"]]}


def gemma3n_keys(c: Config) -> dict[str, Any]:
    """Gemma3NModel."""
    sparsity = [NormalDist().inv_cdf(each) if each else -math.inf for each in c["activation_sparsity_pattern"]]
    return {
        **window_keys(c),
        "feed_forward_length": c["intermediate_size"],
        "rope.freq_base_swa": c["rope_local_base_freq"],
        "final_logit_softcapping": c["final_logit_softcapping"],
        "altup.active_idx": c["altup_active_idx"],
        "altup.num_inputs": c["altup_num_inputs"],
        "embedding_length_per_layer_input": c["hidden_size_per_layer_input"],
        "attention.shared_kv_layers": c["num_kv_shared_layers"],
        "activation_sparsity_scale": sparsity,
    }


def gemma4_keys(c: Config) -> dict[str, Any]:
    """Gemma4Model."""
    full, layers = c["global_head_dim"], c["num_hidden_layers"]
    keys = {
        **window_keys(c),
        "rope.freq_base_swa": c["rope_parameters"]["sliding_attention"]["rope_theta"],
        "final_logit_softcapping": c["final_logit_softcapping"],
        "attention.shared_kv_layers": c["num_kv_shared_layers"],
        "embedding_length_per_layer_input": c["hidden_size_per_layer_input"],
        "attention.key_length": full,
        "attention.value_length": full,
        "attention.key_length_swa": c["head_dim"],
        "attention.value_length_swa": c["head_dim"],
        "rope.dimension_count": full,
        "rope.dimension_count_swa": c["head_dim"],
    }
    if c.get("use_double_wide_mlp"):
        first, width = layers - c["num_kv_shared_layers"], c["intermediate_size"]
        keys["feed_forward_length"] = [width * (1 if i < first else 2) for i in range(layers)]
    if c.get("num_global_key_value_heads"):
        of_kind = {"sliding_attention": c["num_key_value_heads"], "full_attention": c["num_global_key_value_heads"]}
        keys["attention.head_count_kv"] = [of_kind[kind] for kind in c["layer_types"]]
    if c.get("enable_moe_block"):
        keys["expert_feed_forward_length"] = c["moe_intermediate_size"]
    return keys


def falcon_keys(c: Config) -> dict[str, Any]:
    return {
        "context_length": 2048,
        "tensor_data_layout": "jploski",
        "feed_forward_length": 4 * c["hidden_size"],
        "attention.head_count_kv": c["num_kv_heads"],
    }


def gptneox_keys(c: Config) -> dict[str, Any]:
    rotated = int(c["rotary_pct"] * (c["hidden_size"] // c["num_attention_heads"]))
    return {"use_parallel_residual": c["use_parallel_residual"], "rope.dimension_count": rotated}
