"""GGUF files as llama.cpp's converters make them of a checkpoint: which keys they write, and what they do to tensors.

Names are those of the gguf package's own map of tensors. What a converter does is written out here, after
conversion/*.py of llama.cpp, independently of albireo.models.gguf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

gguf = pytest.importorskip("gguf")
Array = NDArray[np.float32]
Config = Mapping[str, Any]
#: What a converter gives for a tensor: names of a checkpoint, or already of a file, and numbers.
Given = Iterator[tuple[str, Array]]


@dataclass(frozen=True)
class Conversion:
    """Of one architecture. Fields: arch: its name there. keys: beside those of all. change: see Given."""

    arch: str
    keys: Callable[[Config], dict[str, Any]] = lambda c: {}
    change: Callable[[str, Array, Config], Given] = lambda name, array, c: iter([(name, array)])


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


def _head_dim(c: Config) -> int:
    return int(c.get("head_dim") or c["hidden_size"] // c["num_attention_heads"])


def _rotated(c: Config) -> int:
    part = (c.get("rope_parameters") or {}).get("partial_rotary_factor") or c.get("partial_rotary_factor")
    return int(_head_dim(c) * part)


def _experts(c: Config) -> dict[str, Any]:
    """Of DeepSeek and its like."""
    return {
        "leading_dense_block_count": c["first_k_dense_replace"],
        "expert_feed_forward_length": c["moe_intermediate_size"],
        "expert_shared_count": c["n_shared_experts"],
        "expert_weights_scale": c["routed_scaling_factor"],
        "expert_weights_norm": c["norm_topk_prob"],
    }


def _with_experts(c: Config) -> dict[str, Any]:
    """Glm4MoeModel."""
    return {**_experts(c), "expert_gating_func": 2, "rope.dimension_count": _rotated(c)}


# --- gated delta rule -------------------------------------------------------------------------------------------------


def _gated_delta_keys(c: Config) -> dict[str, Any]:
    """Qwen3NextModel.set_gguf_parameters()."""
    keys = {
        "ssm.conv_kernel": c["linear_conv_kernel_dim"],
        "ssm.state_size": c["linear_key_head_dim"],
        "ssm.group_count": c["linear_num_key_heads"],
        "ssm.time_step_rank": c["linear_num_value_heads"],
        "ssm.inner_size": c["linear_value_head_dim"] * c["linear_num_value_heads"],
        "attention.recurrent_layers": [kind == "linear_attention" for kind in c["layer_types"]],
        "full_attention_interval": c.get("full_attention_interval", 4),
        "rope.dimension_count": _rotated(c),
    }
    if "num_experts" in c:
        keys["expert_feed_forward_length"] = c["moe_intermediate_size"]
        keys["expert_shared_feed_forward_length"] = c["shared_expert_intermediate_size"]
    if c["model_type"] != "qwen3_next":
        keys["rope.dimension_sections"] = [11, 11, 10, 0]
    return keys


def _qwen3_next(name: str, array: Array, c: Config) -> Given:
    """Qwen3NextModel.modify_tensors()."""
    if name.endswith(".A_log"):
        array = -np.exp(array)
    elif name.endswith(".dt_bias"):
        name = name.replace(".dt_bias", ".dt_proj.bias")
    elif name.endswith("norm.weight") and not name.endswith("linear_attn.norm.weight"):
        array = array + np.float32(1)
    if not name.endswith("in_proj_qkvz.weight"):
        yield name, array
        return
    keys, each = c["linear_num_key_heads"], c["linear_num_value_heads"] // c["linear_num_key_heads"]
    widths = [c["linear_key_head_dim"]] * 2 + [each * c["linear_value_head_dim"]] * 2
    parts = np.split(array.reshape(keys, sum(widths), -1), np.cumsum(widths)[:-1], axis=1)
    q, k, v, z = (part.reshape(-1, array.shape[1]) for part in parts)
    block = f"blk.{name.split('.')[2]}"
    yield f"{block}.attn_qkv.weight", np.concatenate([q, k, v])
    yield f"{block}.attn_gate.weight", z


def _older_qwen3_next(name: str, array: Array, c: Config) -> Given:
    """As it was before its projections were taken apart: one tensor, as in the checkpoint."""
    if name.endswith("in_proj_qkvz.weight"):
        yield name, array
    else:
        yield from _qwen3_next(name, array, c)


def _tiled(array: Array, c: Config, width: int) -> Array:
    """_reorder_v_heads() of the first dimension: from [G0_v0, G0_v1, G1_v0, ...] to [G0_v0, G1_v0, ..., G0_v1, ...]."""
    keys, each = c["linear_num_key_heads"], c["linear_num_value_heads"] // c["linear_num_key_heads"]
    return array.reshape(keys, each, width, -1).swapaxes(0, 1).reshape(array.shape)


def _qwen3_5(name: str, array: Array, c: Config) -> Given:
    """_LinearAttentionVReorderBase.modify_tensors()."""
    width, first = c["linear_value_head_dim"], 2 * c["linear_num_key_heads"] * c["linear_key_head_dim"]
    part = name.rpartition(".linear_attn.")[2]
    if part in ("in_proj_qkv.weight", "conv1d.weight"):
        array = np.concatenate([array[:first], _tiled(array[first:], c, width)])
    elif part == "in_proj_z.weight":
        array = _tiled(array, c, width)
    elif part in ("in_proj_a.weight", "in_proj_b.weight", "A_log", "dt_bias"):
        array = _tiled(array, c, 1)
    elif part == "out_proj.weight":
        array = np.ascontiguousarray(_tiled(np.ascontiguousarray(array.T), c, width).T)
    yield from _qwen3_next(name, array, c)


# --- short convolutions -----------------------------------------------------------------------------------------------


def _short_conv_keys(c: Config) -> dict[str, Any]:
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


# --- Mamba 2 ----------------------------------------------------------------------------------------------------------


def _mamba(name: str, array: Array, groups: int) -> tuple[str, Array]:
    """Mamba2Model.modify_tensors()."""
    part = name.rpartition(".")[2]
    if part == "A_log":
        return name, -np.exp(array)[:, None]
    if part == "D":
        return name, array[:, None]
    if part == "dt_bias":
        return f"{name.rpartition('.')[0]}.{'dt' if '.mixer.' in name else 'dt_proj'}.bias", array
    is_norm = name.endswith(("mamba.norm.weight", "mixer.norm.weight"))
    return name, array.reshape(groups, -1) if is_norm else array


def permuted(array: Array, heads: int) -> Array:
    """LlamaModel.permute(): from halves of a head to pairs side by side."""
    return array.reshape(heads, 2, len(array) // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _granite_keys(c: Config) -> dict[str, Any]:
    return {
        "attention.scale": c["attention_multiplier"],
        "embedding_scale": c["embedding_multiplier"],
        "residual_scale": c["residual_multiplier"],
        "logit_scale": c["logits_scaling"],
        "rope.dimension_count": _head_dim(c),
        "vocab_size": c["vocab_size"],
    }


def _llama(name: str, array: Array, c: Config) -> Given:
    if name.endswith((".q_proj.weight", ".k_proj.weight")):
        array = permuted(array, c["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"])
    yield name, array


def _granite_hybrid_keys(c: Config) -> dict[str, Any]:
    """GraniteHybridModel."""
    is_mixture = c["num_local_experts"] > 0
    return {
        **_granite_keys(c),
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


def _granite_hybrid(name: str, array: Array, c: Config) -> Given:
    block, end = f"blk.{name.split('.')[2]}" if ".layers." in name else "", "_shexp" if c["num_local_experts"] else ""
    if name.endswith("shared_mlp.input_linear.weight"):
        gate, up = np.split(array, 2)
        yield f"{block}.ffn_gate{end}.weight", gate
        yield f"{block}.ffn_up{end}.weight", up
    elif name.endswith("shared_mlp.output_linear.weight"):
        yield f"{block}.ffn_down{end}.weight", array
    else:
        yield from _llama(*_mamba(name, array, c["mamba_n_groups"]), c)


def _nemotron_keys(c: Config) -> dict[str, Any]:
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
        key: value for key, value in _experts({**c, "first_k_dense_replace": 0}).items() if "dense" not in key
    }
    return {
        **keys,
        **of_experts,
        "expert_shared_feed_forward_length": c["moe_shared_expert_intermediate_size"],
    }


def _nemotron(name: str, array: Array, c: Config) -> Given:
    yield _mamba(name, array, c["n_groups"])


# --- latent attention -------------------------------------------------------------------------------------------------


def _deepseek_keys(c: Config) -> dict[str, Any]:
    """DeepseekV2Model."""
    rank, rotary = c["kv_lora_rank"], c["qk_rope_head_dim"]
    keys = {
        **_experts(c),
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


def _youtu_keys(c: Config) -> dict[str, Any]:
    """The same without experts."""
    experts = {"first_k_dense_replace": c["num_hidden_layers"], "moe_intermediate_size": c["intermediate_size"]}
    yarn = {"rope_scaling": {"mscale_all_dim": 0.0}, "n_shared_experts": 0}
    keys = _deepseek_keys({**c, **experts, **yarn, "routed_scaling_factor": None, "norm_topk_prob": None})
    return {key: value for key, value in keys.items() if value is not None and "yarn" not in key}


def _older_deepseek_keys(c: Config) -> dict[str, Any]:
    """As before April 2025: heads of keys and values."""
    keys = {key: value for key, value in _deepseek_keys(c).items() if not key.endswith("_mla")}
    keys |= {"attention.key_length": c["qk_nope_head_dim"] + c["qk_rope_head_dim"]}
    return keys | {"attention.value_length": c["v_head_dim"], "attention.head_count_kv": c["num_attention_heads"]}


def _deepseek(name: str, array: Array, c: Config) -> Given:
    heads, block = c["num_attention_heads"], f"blk.{name.split('.')[2]}" if ".layers." in name else ""
    if name.endswith("kv_b_proj.weight"):
        parts = array.reshape(heads, -1, c["kv_lora_rank"])
        keys, values = np.split(parts, [c["qk_nope_head_dim"]], axis=1)
        yield f"{block}.attn_k_b.weight", np.ascontiguousarray(keys.transpose(0, 2, 1))
        yield f"{block}.attn_v_b.weight", np.ascontiguousarray(values)
    else:
        yield name, array


def _mistral3_keys(c: Config) -> dict[str, Any]:
    """Ministral3Model, a LlamaModel."""
    rope, keys = c.get("rope_parameters") or {}, {"rope.dimension_count": _head_dim(c), "vocab_size": c["vocab_size"]}
    if c["model_type"] != "ministral3":
        return keys
    growth = {"attention.temperature_scale": rope["llama_4_scaling_beta"]}
    return {**keys, **growth, "rope.scaling.yarn_log_multiplier": rope["mscale_all_dim"]}


def _qwen3_vl_keys(c: Config) -> dict[str, Any]:
    """Qwen3VLTextModel and Qwen3VLMoeTextModel."""
    keys = {"rope.dimension_sections": [24, 20, 20, 0], "n_deepstack_layers": 3}
    return keys | ({"expert_feed_forward_length": c["moe_intermediate_size"]} if "num_experts" in c else {})


# --- the others -------------------------------------------------------------------------------------------------------


def _ernie_keys(c: Config) -> dict[str, Any]:
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


def _ernie(name: str, array: Array, c: Config) -> Given:
    yield name, array[None] if name.endswith("e_score_correction_bias") else array


def _windows(c: Config) -> dict[str, Any]:
    keys = {"attention.sliding_window": c["sliding_window"]}
    return keys | {"attention.sliding_window_pattern": [kind == "sliding_attention" for kind in c["layer_types"]]}


def _gemma4_keys(c: Config) -> dict[str, Any]:
    """Gemma4Model."""
    full, layers = c["global_head_dim"], c["num_hidden_layers"]
    keys = {
        **_windows(c),
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


def _gemma4(name: str, array: Array, c: Config) -> Given:
    block = f"blk.{name.split('.')[2]}" if ".layers." in name else ""
    if name == "model.norm.weight":  # once: what else there is
        turning = int(c["global_head_dim"] * c["rope_parameters"]["full_attention"]["partial_rotary_factor"] / 2)
        factors = [1.0] * turning + [1e30] * (c["global_head_dim"] // 2 - turning)
        yield "rope_freqs.weight", np.array(factors, np.float32)
    if name.endswith("router.scale"):
        yield f"{block}.ffn_gate_inp.scale", array
    elif name.endswith("per_expert_scale"):
        yield f"{block}.ffn_down_exps.scale", array
    else:
        yield f"{name}.weight" if name.endswith("layer_scalar") else name, array


def _falcon_keys(c: Config) -> dict[str, Any]:
    return {
        "context_length": 2048,
        "tensor_data_layout": "jploski",
        "feed_forward_length": 4 * c["hidden_size"],
        "attention.head_count_kv": c["num_kv_heads"],
    }


def _falcon(name: str, array: Array, c: Config) -> Given:
    if "query_key_value" in name:
        heads, groups = c["num_attention_heads"], c["num_kv_heads"]
        parts = array.reshape(groups, heads // groups + 2, c["hidden_size"] // heads, -1)
        pieces = (parts[:, :-2], parts[:, -2], parts[:, -1])
        array = np.concatenate([piece.reshape(-1, array.shape[1]) for piece in pieces])
    yield name, array


def _gptneox_keys(c: Config) -> dict[str, Any]:
    rotated = int(c["rotary_pct"] * (c["hidden_size"] // c["num_attention_heads"]))
    return {"use_parallel_residual": c["use_parallel_residual"], "rope.dimension_count": rotated}


def _gptneox(name: str, array: Array, c: Config) -> Given:
    if "query_key_value" in name:
        parts = array.reshape(c["num_attention_heads"], 3, -1, *array.shape[1:])
        array = np.concatenate([parts[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])
    yield name, array


CONVERSIONS: Mapping[str, Conversion] = {
    "qwen3_5_text": Conversion("qwen35", _gated_delta_keys, _qwen3_5),
    "qwen3_5_moe_text": Conversion("qwen35moe", _gated_delta_keys, _qwen3_5),
    "qwen3_next": Conversion("qwen3next", _gated_delta_keys, _qwen3_next),
    "lfm2": Conversion("lfm2", _short_conv_keys),
    "lfm2_moe": Conversion("lfm2moe", _short_conv_keys),
    "gemma4_text": Conversion("gemma4", _gemma4_keys, _gemma4),
    "granitemoehybrid": Conversion("granitehybrid", _granite_hybrid_keys, _granite_hybrid),
    "granitemoe": Conversion("granitemoe", _granite_keys, _llama),
    "nemotron_h": Conversion("nemotron_h", _nemotron_keys, _nemotron),
    "nemotron_h, experts": Conversion("nemotron_h_moe", _nemotron_keys, _nemotron),
    "deepseek_v2": Conversion("deepseek2", _deepseek_keys, _deepseek),
    "deepseek_v3": Conversion("deepseek2", _deepseek_keys, _deepseek),
    "youtu": Conversion("deepseek2", _youtu_keys, _deepseek),
    "glm4_moe_lite": Conversion("deepseek2", _deepseek_keys, _deepseek),
    "ministral3": Conversion("mistral3", _mistral3_keys, _llama),
    "mistral": Conversion("mistral3", _mistral3_keys, _llama),
    "qwen3": Conversion("qwen3vl", _qwen3_vl_keys),
    "qwen3_moe": Conversion("qwen3vlmoe", _qwen3_vl_keys),
    "glm4": Conversion("glm4", lambda c: {"rope.dimension_count": _rotated(c)}),
    "glm4_moe": Conversion("glm4moe", _with_experts),
    "ernie4_5": Conversion("ernie4_5"),
    "ernie4_5_moe": Conversion("ernie4_5-moe", _ernie_keys, _ernie),
    "exaone4": Conversion("exaone4", lambda c: _windows(c) if c.get("sliding_window") else {}),
    "seed_oss": Conversion("seed_oss"),
    "olmoe": Conversion("olmoe"),
    "olmo3": Conversion("olmo2", lambda c: {**_windows(c), "rope.freq_base_swa": c["rope_theta"]}),
    "starcoder2": Conversion("starcoder2"),
    "minimax_m2": Conversion(
        "minimax-m2",
        lambda c: {"rope.dimension_count": c["rotary_dim"], "expert_feed_forward_length": c["intermediate_size"]},
    ),
    "dots1": Conversion("dots1", lambda c: {**_experts(c), "expert_gating_func": 2}),
    "cohere": Conversion("command-r", lambda c: {"logit_scale": c["logit_scale"], "rope.scaling.type": "none"}),
    "falcon": Conversion("falcon", _falcon_keys, _falcon),
    "stablelm": Conversion(
        "stablelm",
        lambda c: {"rope.dimension_count": _rotated(c), "use_parallel_residual": c["use_parallel_residual"]},
    ),
    "gpt_neox": Conversion("gptneox", _gptneox_keys, _gptneox),
    "gpt2": Conversion("gpt2", lambda c: {"feed_forward_length": 4 * c["n_embd"]}),
    "phi": Conversion("phi2", lambda c: {"rope.dimension_count": _rotated(c)}),
}
OLDER: Mapping[str, Conversion] = {
    "qwen3_next": Conversion("qwen3next", _gated_delta_keys, _older_qwen3_next),
    "deepseek_v3": Conversion("deepseek2", _older_deepseek_keys),
}


def write(
    path: Path,
    c: Config,
    weights: Mapping[str, Array],
    conversion: Conversion,
    kind: str = "F32",
    keys: Mapping[str, Any] | None = None,
) -> None:
    """Args:
    weights: of the checkpoint, matrices of experts one by one.
    kind: of matrices whose rows are whole blocks of it; Q8_0 or F32.
    keys: instead of what would be written, or besides; None: no such key.
    """
    writer = gguf.GGUFWriter(str(path), conversion.arch)
    arch = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == conversion.arch)
    written = {**common_keys(c), **conversion.keys(c), **(keys or {})}
    names = gguf.get_tensor_name_map(arch, min(written["block_count"], 100))
    for key, value in written.items():
        add = {bool: writer.add_bool, float: writer.add_float32, int: writer.add_uint32, str: writer.add_string}
        if value is not None:
            {**add, list: writer.add_array}[type(value)](f"{conversion.arch}.{key}", value)
    writer.add_bos_token_id(c.get("bos_token_id") or 0)
    for name, array in _stacked(c, weights, conversion):
        for new, numbers in conversion.change(name, array, c):
            stored = new if new.startswith(("blk.", "rope_freqs.")) else _stored_name(names, new)
            data, raw = np.ascontiguousarray(numbers, np.float32), {}
            is_float = any(part in stored for part in ("ffn_gate_inp", "ssm_norm", "per_layer_token_embd"))
            if kind != "F32" and numbers.ndim > 1 and numbers.shape[-1] % 32 == 0 and not is_float:
                data, raw = (
                    gguf.quantize(data, gguf.GGMLQuantizationType[kind]),
                    {"raw_dtype": gguf.GGMLQuantizationType[kind]},
                )
            writer.add_tensor(stored, data, **raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored_name(names: Any, name: str) -> str:
    """By the package's own map, after what base.py and the converters do to names alone."""
    for old, new in (("e_score_correction_bias", "e_score_correction.bias"), (".expert_bias", ".expert_bias.bias")):
        name = name.replace(old, new) if name.endswith(old) else name
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert found is not None, name
    return str(found)


def _stacked(c: Config, weights: Mapping[str, Array], conversion: Conversion) -> Given:
    """Matrices of all experts of a layer as one; of Gemma 4 gate and up, too."""
    parts: dict[str, list[Array]] = {}
    for name, array in weights.items():
        block, _, rest = name.partition(".experts.")
        if rest:
            if conversion.arch.startswith("nemotron"):
                block = block.replace(".mixer", ".mlp").replace("backbone.", "model.")
            block = block.removeprefix("model.") if conversion.arch == "lfm2moe" else block
            parts.setdefault(f"{block}.experts.{rest.partition('.')[2]}", []).append(array)
        else:
            yield name, array
    stacked = {name: np.stack(arrays) for name, arrays in parts.items()}
    for name, array in stacked.items():
        block, of_granite = name.rpartition(".experts.")[0], "block_sparse_moe.experts.{}_proj.weight"
        if conversion.arch == "gemma4":
            if "gate_proj" in name:
                up = stacked[name.replace("gate_proj", "up_proj")]
                yield f"{block}.experts.gate_up_proj.weight", np.concatenate([array, up], axis=1)
            elif "down_proj" in name:
                yield name, array
        elif conversion.arch.startswith("granite"):
            layer, matrix = name.split(".")[2], name.rpartition("_proj")[0].rpartition(".")[2]
            assert name.endswith(of_granite.format(matrix))
            yield f"blk.{layer}.ffn_{matrix}_exps.weight", array
        else:
            yield name, array
