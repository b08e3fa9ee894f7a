"""GGUF files of architectures that came to the table later, as llama.cpp's converters make them: cases, keys, and what
is done to tensors. See conversions.py.

Where the gguf package has no map of an architecture it is another's, and what that lacks is written out here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.models import load_architecture
from models.gguf import conversion_keys as k
from models.gguf.conversion_keys import Config
from models.gguf.conversions import Conversion, Given, _deepseek, _llama
from models.gguf.writer import Array


def tiny(name: str, **changes: Any) -> dict[str, Any]:
    """Of an architecture, with changes; ... takes a key away. Widths are whole blocks of Q8_0 where they may be."""
    config = {**load_architecture(name).tiny, **changes}
    return {key: value for key, value in config.items() if value is not ...}


_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0}
_YARN |= {"mscale": 0.7, "mscale_all_dim": 0.7}
_PLAIN = {"rope_type": "default", "rope_theta": 5e5}
#: What no file of Phi-3.5-MoE says.
_PHIMOE = load_architecture("phimoe").tiny["rope_scaling"]
_PHIMOE = {**_PHIMOE, **dict.fromkeys(("short_mscale", "long_mscale"), 1.243163121016122)}


def _block(group: int | None, ffn: float | None) -> dict[str, Any]:
    """Of DeciLM."""
    return {
        "attention": {"n_heads_in_group": group, "no_op": not group},
        "ffn": {"ffn_mult": ffn, "no_op": not ffn},
    }


CASES: Mapping[str, dict[str, Any]] = {
    "apertus": tiny("apertus", rope_scaling=..., rope_theta=..., rope_parameters=_PLAIN),
    "jais2": tiny("jais2", hidden_size=64),
    "bloom": tiny("bloom", hidden_size=96),
    "mpt": tiny("mpt", d_model=96),
    "dbrx": tiny("dbrx", d_model=64),
    "mamba": tiny("mamba", hidden_size=64),
    "falcon_mamba": tiny("falcon_mamba", mixer_rms_eps=1e-6),
    "jamba": tiny("jamba", hidden_size=64, rms_norm_eps=1e-3),
    "phimoe": tiny("phimoe", router_jitter_noise=0.01, rope_scaling=_PHIMOE),
    "granitemoeshared": tiny("granitemoeshared", hidden_size=64),
    "minicpm3": tiny("minicpm3", scale_emb=12.0, scale_depth=1.4, dim_model_base=256),
    "cohere2_moe": tiny("cohere2_moe", hidden_size=64),
    "hy_v3": tiny("hy_v3", hidden_size=64),
    "afmoe": tiny("afmoe", num_hidden_layers=4, global_attn_every_n_layers=4, hidden_size=64),
    "laguna": tiny(
        "laguna",
        num_hidden_layers=4,
        num_attention_heads_per_layer=[4, 6, 6, 6],
        layer_types=["full_attention"] + ["sliding_attention"] * 3,
        mlp_layer_types=["dense"] + ["sparse"] * 3,
    ),
    "mimo_v2_flash": tiny("mimo_v2_flash"),
    "step3p5": tiny(
        "step3p5",
        swiglu_limits=[None, 0.25, 0.0],
        swiglu_limits_shared=[0.5, 0.0, 0.5],
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0},
        },
    ),
    "minimax_m3_vl_text": tiny("minimax_m3_vl_text", hidden_size=64, index_block_size=2, index_topk_blocks=2),
    "deepseek_v32": tiny("deepseek_v32", rope_scaling=_YARN, num_nextn_predict_layers=..., index_topk=4),
    "glm_moe_dsa": tiny("glm_moe_dsa", num_nextn_predict_layers=..., index_topk=4),
    "kimi_linear": tiny("kimi_linear", hidden_size=64),
    "mistral4": tiny("mistral4", hidden_size=64),
    "mellum": tiny("mellum", mlp_layer_types=["sparse"] * 3),
    "orion": tiny("orion"),
    "xverse": tiny("xverse"),
    "nemotron_nas": tiny(
        "nemotron_nas", block_configs=[_block(2, 1.0), _block(None, 1.0), _block(1, None), _block(4, 1.0)]
    ),
    "granite_swa": tiny("granite_swa", layer_rope_theta=[0] + [10000.0] * 4),
    "granitemoe_swa": tiny("granitemoe_swa", layer_rope_theta=[0, 10000.0]),
}


def _mamba1(name: str, array: Array, c: Config) -> Given:
    yield name, -np.exp(array) if name.endswith(".A_log") else array


def _by_head(name: str, array: Array, c: Config) -> Given:
    """BloomModel."""
    if "query_key_value" in name:
        parts = array.reshape(c["n_head"], 3, -1, *array.shape[1:])
        array = np.concatenate([parts[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])
    yield name.removeprefix("transformer."), array


def _apertus(name: str, array: Array, c: Config) -> Given:
    """ApertusModel: slopes become settings."""
    if ".act_fn." not in name:
        yield name, array


def _with_factors(name: str, array: Array, c: Config) -> Given:
    if name == "model.norm.weight":  # once: what else there is
        for which in ("long", "short"):
            yield f"rope_factors_{which}.weight", np.array(c["rope_scaling"][f"{which}_factor"], np.float32)
    yield name, array


def _phimoe(name: str, array: Array, c: Config) -> Given:
    yield from _with_factors(name, array, c)


def _granite_shared(name: str, array: Array, c: Config) -> Given:
    """GraniteMoeModel."""
    block = f"blk.{name.split('.')[2]}" if ".layers." in name else ""
    if name.endswith("shared_mlp.input_linear.weight"):
        for part, half in zip(("gate", "up"), np.split(array, 2), strict=True):
            yield f"{block}.ffn_{part}_shexp.weight", half
    elif name.endswith("shared_mlp.output_linear.weight"):
        yield f"{block}.ffn_down_shexp.weight", array
    else:
        yield from _llama(name, array, c)


def _granite_swa(name: str, array: Array, c: Config) -> Given:
    """LlamaModel permutes biases, too."""
    yield from _llama(name, array, c) if name.endswith(".weight") else _llama_bias(name, array, c)


def _llama_bias(name: str, array: Array, c: Config) -> Given:
    heads = {"q_proj": c["num_attention_heads"], "k_proj": c["num_key_value_heads"]}.get(name.split(".")[-2])
    yield name, array if heads is None else _permuted(array, heads)


def _plus_one(name: str, array: Array, c: Config) -> Given:
    yield name, array + 1 if name.endswith("norm.weight") else array


def _kimi(name: str, array: Array, c: Config) -> Given:
    """KimiLinearModel."""
    if name.endswith("conv1d.weight"):
        array = array.reshape(1, len(array), 1, -1)
    elif name.endswith(".A_log"):
        array = -np.exp(array).reshape(1, 1, -1, 1)
    elif name.endswith(".dt_bias"):
        name = name.replace(".dt_bias", ".dt_proj.bias")
    yield from _deepseek(name, array, c)


def _decilm(name: str, array: Array, c: Config) -> Given:
    part = name.rpartition(".weight")[0].rpartition(".")[2]
    if part in ("q_proj", "k_proj"):
        group = c["block_configs"][int(name.split(".")[2])]["attention"]["n_heads_in_group"]
        array = _permuted(array, c["num_attention_heads"] // (group if part == "k_proj" else 1))
    yield name, array


def _permuted(array: Array, heads: int) -> Array:
    return array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _xverse(name: str, array: Array, c: Config) -> Given:
    is_pair = name.endswith((".q_proj.weight", ".k_proj.weight"))
    yield name, _permuted(array, c["num_attention_heads"]) if is_pair else array


def _rotated(c: Config) -> dict[str, Any]:
    return {"rope.dimension_count": k.head_dim_of(c)}


def _states_alone(c: Config) -> dict[str, Any]:
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


def _jamba_keys(c: Config) -> dict[str, Any]:
    attends = [i % c["attn_layer_period"] == c["attn_layer_offset"] for i in range(c["num_hidden_layers"])]
    return {
        "attention.head_count_kv": [c["num_key_value_heads"] if each else 0 for each in attends],
        "ssm.conv_kernel": c["mamba_d_conv"],
        "ssm.inner_size": c["mamba_expand"] * c["hidden_size"],
        "ssm.state_size": c["mamba_d_state"],
        "ssm.time_step_rank": c["mamba_dt_rank"],
    }


def _mpt_keys(c: Config) -> dict[str, Any]:
    """Of MPTModel and DbrxModel, what both have."""
    return {
        "context_length": c["max_seq_len"],
        "embedding_length": c["d_model"],
        "block_count": c["n_layers"],
        "feed_forward_length": 4 * c["d_model"],
        "attention.head_count": c["n_heads"],
        "attention.layer_norm_epsilon": 1e-5,
    }


def _dbrx_keys(c: Config) -> dict[str, Any]:
    ffn, attention = c["ffn_config"], c["attn_config"]
    return {
        **_mpt_keys(c),
        "feed_forward_length": ffn["ffn_hidden_size"],
        "attention.head_count_kv": attention["kv_n_heads"],
        "rope.freq_base": attention["rope_theta"],
        "attention.clamp_kqv": attention["clip_qkv"],
        "expert_count": ffn["moe_num_experts"],
        "expert_used_count": ffn["moe_top_k"],
    }


def _minicpm3_keys(c: Config) -> dict[str, Any]:
    return {
        "attention.q_lora_rank": c["q_lora_rank"],
        "attention.kv_lora_rank": c["kv_lora_rank"],
        "attention.key_length": c["qk_nope_head_dim"] + c["qk_rope_head_dim"],
        "rope.dimension_count": c["qk_rope_head_dim"],
        "rope.freq_base": None,
    }


def _phimoe_keys(c: Config) -> dict[str, Any]:
    """Phi3MiniModel and PhiMoeModel."""
    return {
        "rope.scaling.original_context_length": c["original_max_position_embeddings"],
        "rope.scaling.attn_factor": 1.0,
        "rope.dimension_count": k.head_dim_of(c),
        "attention.sliding_window": c["sliding_window"],
    }


def _cohere_keys(c: Config) -> dict[str, Any]:
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


def _hy_v3_keys(c: Config) -> dict[str, Any]:
    return {
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_feed_forward_length": c["moe_intermediate_size"] * c["num_shared_experts"],
        "expert_weights_norm": True,
        "expert_weights_scale": c["router_scaling_factor"],
        "expert_gating_func": 2,
    }


def _afmoe_keys(c: Config) -> dict[str, Any]:
    return {
        "expert_shared_count": c["num_shared_experts"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "leading_dense_block_count": c["num_dense_layers"],
        "expert_weights_scale": c["route_scale"],
        "expert_weights_norm": True,
        "attention.sliding_window": c["sliding_window"],
        "rope.dimension_count": c["head_dim"],
    }


def _local_rope(c: Config) -> dict[str, Any]:
    return {"rope.freq_base_swa": c["rope_parameters"]["sliding_attention"]["rope_theta"]}


def _part(c: Config, kind: str) -> int:
    return int(c["head_dim"] * c["rope_parameters"][kind]["partial_rotary_factor"])


def _laguna_keys(c: Config) -> dict[str, Any]:
    return {
        **_local_rope(c),
        "attention.head_count": c["num_attention_heads_per_layer"],
        "attention.sliding_window": c["sliding_window"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_feed_forward_length": c["shared_expert_intermediate_size"],
        "expert_weights_norm": True,
        "expert_weights_scale": c["moe_routed_scaling_factor"],
        "expert_gating_func": 2,
        "leading_dense_block_count": c["mlp_layer_types"].count("dense"),
        "rope.dimension_count": _part(c, "full_attention"),
        "rope.dimension_count_swa": _part(c, "sliding_attention"),
    }


def _mimo_keys(c: Config) -> dict[str, Any]:
    """MimoV2Model, with an entry of three layers behind in lists."""
    local = [kind == "sliding_attention" for kind in c["layer_types"]] + [True] * 3
    return {
        **_local_rope(c),
        "block_count": c["num_hidden_layers"] + 3,
        "nextn_predict_layers": 3,
        "attention.head_count_kv": [c["num_key_value_heads"] * (2 if each else 1) for each in local],
        "attention.sliding_window": c["sliding_window"],
        "attention.sliding_window_pattern": [int(each) for each in local],
        "attention.value_length": c["v_head_dim"],
        "attention.value_scale": c["attention_value_scale"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_gating_func": 2,
        "rope.dimension_count": _part(c, "full_attention"),
    }


def _step_keys(c: Config) -> dict[str, Any]:
    """Step35Model."""
    local = [kind == "sliding_attention" for kind in c["layer_types"]]
    return {
        **_local_rope(c),
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


def _minimax_keys(c: Config) -> dict[str, Any]:
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


def _dsa_keys(c: Config) -> dict[str, Any]:
    """DeepseekV32Model and GlmMoeDsaModel."""
    keys = k.deepseek_keys({"rope_scaling": {"mscale_all_dim": 0.0}, **c})
    if "rope_scaling" not in c:
        del keys["rope.scaling.yarn_log_multiplier"]
    keys |= {f"attention.indexer.{key}": c[f"index_{name}"] for key, name in _INDEX.items()}
    if "indexer_types" in c:
        keys["attention.indexer.types"] = [kind == "full" for kind in c["indexer_types"]]
    return {**keys, "expert_gating_func": 2}


_INDEX = {"head_count": "n_heads", "key_length": "head_dim", "top_k": "topk"}


def _mistral4_keys(c: Config) -> dict[str, Any]:
    keys = k.deepseek_keys({**c, "rope_scaling": c["rope_parameters"]})
    return {**keys, "attention.temperature_scale": c["rope_parameters"]["llama_4_scaling_beta"]}


def _kimi_keys(c: Config) -> dict[str, Any]:
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


def _mellum_keys(c: Config) -> dict[str, Any]:
    return {**_local_rope(c), **k.window_keys(c), "expert_feed_forward_length": c["moe_intermediate_size"]}


def _decilm_keys(c: Config) -> dict[str, Any]:
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


def _granite_swa_keys(c: Config) -> dict[str, Any]:
    keys = {**k.granite_keys(c), **k.window_keys(c)}
    keys["attention.rope_pattern"] = [bool(each) for each in c["layer_rope_theta"]]
    shared = c.get("shared_intermediate_size")
    return keys | ({"expert_shared_feed_forward_length": shared} if shared else {})


def _slopes(c: Config, weights: Mapping[str, Array]) -> dict[str, list[float]]:
    """Of ApertusModel, under no architecture's name."""
    layers = range(c["num_hidden_layers"])
    keys = {f"xielu.{p}": [weights[f"model.layers.{i}.mlp.act_fn.{p}"][0].item() for i in layers] for p in _ALPHAS}
    return keys | {"xielu.beta": [0.5] * len(layers), "xielu.eps": [-1e-6] * len(layers)}


_ALPHAS = ("alpha_n", "alpha_p")
_FFN = {f"mlp.{part}_proj": f"ffn_{part}" for part in ("gate", "up", "down")}
_SHARED_MLP = {f"mlp.shared_mlp.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")}
_SHARED = {f"block_sparse_moe.shared_experts.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")}
_DBRX = {f"ffn.experts.{matrix}": f"ffn_{part}_exps" for matrix, part in (("w1", "gate"), ("v1", "up"), ("w2", "down"))}
CONVERSIONS: Mapping[str, Conversion] = {
    "apertus": Conversion("apertus", _rotated, _apertus, of_weights=_slopes),
    "jais2": Conversion("jais2", _rotated),
    "bloom": Conversion(
        "bloom",
        lambda c: {
            "context_length": c["seq_length"],
            "feed_forward_length": 4 * c["hidden_size"],
            "attention.head_count_kv": c["n_head"],
        },
        _by_head,
    ),
    "mpt": Conversion("mpt", lambda c: {**_mpt_keys(c), "attention.max_alibi_bias": 8.0}),
    "dbrx": Conversion("dbrx", _dbrx_keys, own=_DBRX),
    "mamba": Conversion("mamba", _states_alone, _mamba1),
    "falcon_mamba": Conversion("mamba", _states_alone, _mamba1),
    "jamba": Conversion("jamba", _jamba_keys, _mamba1),
    "phimoe": Conversion("phimoe", _phimoe_keys, _phimoe),
    "granitemoeshared": Conversion(
        "granitemoe",
        lambda c: {**k.granite_keys(c), "expert_shared_feed_forward_length": c["shared_intermediate_size"]},
        _granite_shared,
    ),
    "minicpm3": Conversion("minicpm3", _minicpm3_keys, _with_factors),
    "cohere2_moe": Conversion("cohere2moe", _cohere_keys, map_of="deepseek"),
    "hy_v3": Conversion(
        "hy_v3",
        _hy_v3_keys,
        own={**_FFN, **_SHARED_MLP, "mlp.expert_bias": "exp_probs_b", "mlp.router.gate": "ffn_gate_inp"},
        map_of="qwen3moe",
    ),
    "afmoe": Conversion("afmoe", _afmoe_keys, own={"mlp.expert_bias": "exp_probs_b.bias"}),
    "laguna": Conversion(
        "laguna",
        _laguna_keys,
        own={
            **_FFN,
            "self_attn.g_proj": "attn_gate",
            "mlp.experts.e_score_correction_bias": "exp_probs_b.bias",
            **{f"mlp.shared_expert.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")},
        },
        map_of="qwen3moe",
    ),
    "mimo_v2_flash": Conversion("mimo2", _mimo_keys, own={"self_attn.attention_sink_bias": "attn_sinks.weight"}),
    "step3p5": Conversion("step35", _step_keys, _plus_one, own={"self_attn.g_proj": "attn_gate"}),
    "minimax_m3_vl_text": Conversion(
        "minimax-m3",
        _minimax_keys,
        _plus_one,
        own={
            **_SHARED,
            **{f"self_attn.index_{p}_{of}": f"indexer.{p}_{of}" for p in "qk" for of in ("proj", "norm")},
            **_FFN,
        },
        map_of="minimax-m2",
    ),
    "deepseek_v32": Conversion("deepseek32", _dsa_keys, _deepseek, map_of="glm-dsa"),
    "glm_moe_dsa": Conversion("glm-dsa", _dsa_keys, _deepseek),
    "kimi_linear": Conversion("kimi-linear", _kimi_keys, _kimi),
    "mistral4": Conversion("mistral4", _mistral4_keys, _deepseek),
    "mellum": Conversion("mellum", _mellum_keys, map_of="qwen3moe"),
    "orion": Conversion("orion", lambda c: {"attention.layer_norm_epsilon": c["rms_norm_eps"]}),
    "xverse": Conversion("xverse", _rotated, _xverse),
    "nemotron_nas": Conversion("deci", _decilm_keys, _decilm),
    "granite_swa": Conversion(
        "granite_swa", _granite_swa_keys, _granite_swa, {"self_attn.sinks": "attn_sinks.weight"}, "granite"
    ),
    "granitemoe_swa": Conversion(
        "granite_swa",
        _granite_swa_keys,
        _granite_swa,
        own={
            "self_attn.sinks": "attn_sinks.weight",
            "shared_mlp.input_linear": "ffn_up_shexp",
            "shared_mlp.output_linear": "ffn_down_shexp",
            "block_sparse_moe.router": "ffn_gate_inp",
        },
        map_of="granitemoe",
    ),
}
