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
from models.gguf import further_keys
from models.gguf.conversion_keys import Config
from models.gguf.conversions import Conversion, Given, _deepseek, _llama
from models.gguf.writer import Array


def tiny(name: str, **changes: Any) -> dict[str, Any]:
    """Of an architecture, with changes; ... takes a key away. Widths are whole blocks of Q8_0 where they may be."""
    config = {**load_architecture(name).tiny, **changes}
    return {key: value for key, value in config.items() if value is not ...}


_YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "beta_fast": 16.0, "beta_slow": 2.0}
_STRETCHED = dict(_YARN)
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
    "hrm_text": tiny("hrm_text", embedding_scale=2.0),
    "qwen2": tiny("qwen2", use_sliding_window=False),
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
    "deepseek_v4": tiny("deepseek_v4", scoring_func=..., hidden_size=64, rope_scaling=_STRETCHED),
    "kimi_linear": tiny("kimi_linear", hidden_size=64),
    "mistral4": tiny("mistral4", hidden_size=64),
    "mellum": tiny("mellum", mlp_layer_types=["sparse"] * 3),
    "orion": tiny("orion"),
    "xverse": tiny("xverse"),
    "nemotron_nas": tiny(
        "nemotron_nas", block_configs=[_block(2, 1.0), _block(None, 1.0), _block(1, None), _block(4, 1.0)]
    ),
    "nemotron_nas, all attend": tiny(
        "nemotron_nas", block_configs=[_block(2, 1.0), _block(1, 1.0), _block(4, 1.0)], num_hidden_layers=3
    ),
    "nemotron_nas, the first does not attend": tiny(
        "nemotron_nas", block_configs=[_block(None, 1.0), _block(1, 1.0), _block(4, 1.0)], num_hidden_layers=3
    ),
    "granite_swa": tiny("granite_swa", layer_rope_theta=[0] + [10000.0] * 4),
    "granitemoe_swa": tiny("granitemoe_swa", layer_rope_theta=[0, 10000.0]),
}


def _stacks(name: str, array: Array, c: Config) -> Given:
    """HrmTextModel."""
    if name == "model.z_L_init":
        yield "hrm.z_l_init", array
        return
    _, module, _, *of_layer = name.split(".") if "_module." in name else ("", "", "")
    if module:
        layer = int(of_layer[0]) + (c["num_layers_per_stack"] if module == "H_module" else 0)
        name = ".".join(("model.layers", str(layer), *of_layer[1:]))
    yield name, array


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
_POOLED = {"kv_proj": "kv", "gate_proj": "gate", "kv_norm": "norm", "position_bias": "ape.weight"}
#: DeepseekV4Model, under the names that transformers has for it.
_V4 = {
    "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_b_proj": "attn_q_b",
    "self_attn.q_a_norm": "attn_q_a_norm",
    "self_attn.kv_proj": "attn_kv",
    "self_attn.kv_norm": "attn_kv_a_norm",
    "self_attn.o_a_proj": "attn_output_a",
    "self_attn.o_b_proj": "attn_output_b",
    "self_attn.sinks": "attn_sinks.weight",
    "mlp.gate.tid2eid": "ffn_gate_tid2eid.weight",
    "self_attn.compressor.indexer.q_b_proj": "indexer.attn_q_b",
    "self_attn.compressor.indexer.scorer.weights_proj": "indexer.proj",
    **{f"self_attn.compressor.{part}": f"attn_compressor_{name}" for part, name in _POOLED.items()},
    **{f"self_attn.compressor.indexer.{part}": f"indexer_compressor_{name}" for part, name in _POOLED.items()},
    **{f"{of}_hc.{part}": f"hc_{of}_{part}.weight" for of in ("attn", "ffn") for part in ("fn", "base", "scale")},
}
CONVERSIONS: Mapping[str, Conversion] = {
    "hrm_text": Conversion(
        "hrm_text", further_keys.hrm_keys, _stacks, {"self_attn.gate_proj": "attn_gate"}, map_of="llama"
    ),
    "qwen2": Conversion("qwen2vl", lambda c: {"rope.dimension_sections": [16, 24, 24, 0]}),
    "apertus": Conversion("apertus", further_keys.rotated, _apertus, of_weights=_slopes),
    "jais2": Conversion("jais2", further_keys.rotated),
    "bloom": Conversion(
        "bloom",
        lambda c: {
            "context_length": c["seq_length"],
            "feed_forward_length": 4 * c["hidden_size"],
            "attention.head_count_kv": c["n_head"],
        },
        _by_head,
    ),
    "mpt": Conversion("mpt", lambda c: {**further_keys.mpt_keys(c), "attention.max_alibi_bias": 8.0}),
    "dbrx": Conversion("dbrx", further_keys.dbrx_keys, own=_DBRX),
    "mamba": Conversion("mamba", further_keys.states_alone, _mamba1),
    "falcon_mamba": Conversion("mamba", further_keys.states_alone, _mamba1),
    "jamba": Conversion("jamba", further_keys.jamba_keys, _mamba1),
    "phimoe": Conversion("phimoe", further_keys.phimoe_keys, _phimoe),
    "granitemoeshared": Conversion(
        "granitemoe",
        lambda c: {**k.granite_keys(c), "expert_shared_feed_forward_length": c["shared_intermediate_size"]},
        _granite_shared,
    ),
    "minicpm3": Conversion("minicpm3", further_keys.minicpm3_keys, _with_factors),
    "cohere2_moe": Conversion("cohere2moe", further_keys.cohere_keys, map_of="deepseek"),
    "hy_v3": Conversion(
        "hy_v3",
        further_keys.hy_v3_keys,
        own={**_FFN, **_SHARED_MLP, "mlp.expert_bias": "exp_probs_b", "mlp.router.gate": "ffn_gate_inp"},
        map_of="qwen3moe",
    ),
    "afmoe": Conversion("afmoe", further_keys.afmoe_keys, own={"mlp.expert_bias": "exp_probs_b.bias"}),
    "laguna": Conversion(
        "laguna",
        further_keys.laguna_keys,
        own={
            **_FFN,
            "self_attn.g_proj": "attn_gate",
            "mlp.experts.e_score_correction_bias": "exp_probs_b.bias",
            **{f"mlp.shared_expert.{part}_proj": f"ffn_{part}_shexp" for part in ("gate", "up", "down")},
        },
        map_of="qwen3moe",
    ),
    "mimo_v2_flash": Conversion(
        "mimo2", further_keys.mimo_keys, own={"self_attn.attention_sink_bias": "attn_sinks.weight"}
    ),
    "step3p5": Conversion("step35", further_keys.step_keys, _plus_one, own={"self_attn.g_proj": "attn_gate"}),
    "minimax_m3_vl_text": Conversion(
        "minimax-m3",
        further_keys.minimax_keys,
        _plus_one,
        own={
            **_SHARED,
            **{f"self_attn.index_{p}_{of}": f"indexer.{p}_{of}" for p in "qk" for of in ("proj", "norm")},
            **_FFN,
        },
        map_of="minimax-m2",
    ),
    "deepseek_v32": Conversion("deepseek32", further_keys.dsa_keys, _deepseek, map_of="glm-dsa"),
    "glm_moe_dsa": Conversion("glm-dsa", further_keys.dsa_keys, _deepseek),
    "deepseek_v4": Conversion("deepseek4", further_keys.v4_keys, own=_V4, map_of="deepseek2"),
    "kimi_linear": Conversion("kimi-linear", further_keys.kimi_keys, _kimi),
    "mistral4": Conversion("mistral4", further_keys.mistral4_keys, _deepseek),
    "mellum": Conversion("mellum", further_keys.mellum_keys, map_of="qwen3moe"),
    "orion": Conversion("orion", lambda c: {"attention.layer_norm_epsilon": c["rms_norm_eps"]}),
    "xverse": Conversion("xverse", further_keys.rotated, _xverse),
    "nemotron_nas": Conversion("deci", further_keys.decilm_keys, _decilm),
    "granite_swa": Conversion(
        "granite_swa", further_keys.granite_swa_keys, _granite_swa, {"self_attn.sinks": "attn_sinks.weight"}, "granite"
    ),
    "granitemoe_swa": Conversion(
        "granite_swa",
        further_keys.granite_swa_keys,
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
