"""GGUF files as llama.cpp's converters make them of a checkpoint: which keys they write, and what they do to tensors.

Names are those of the gguf package's own map of tensors. What a converter does is written out here, after
conversion/*.py of llama.cpp, independently of albireo.models.gguf.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from models.gguf import conversion_keys as k
from models.gguf.conversion_keys import Config
from models.gguf.writer import Array, gguf, permuted

#: What a converter gives for a tensor: names of a checkpoint, or already of a file, and numbers.
Given = Iterator[tuple[str, Array]]


@dataclass(frozen=True)
class Conversion:
    """Of one architecture.

    Fields:
        arch: its name there. keys: beside those of all. change: see Given.
        own: parts of a layer of the checkpoint -> of the file, where the package's map has none.
        map_of: the architecture whose map of the package it is; "": its own.
        of_weights: keys under no architecture's name.
    """

    arch: str
    keys: Callable[[Config], dict[str, Any]] = lambda c: {}
    change: Callable[[str, Array, Config], Given] = lambda name, array, c: iter([(name, array)])
    own: Mapping[str, str] = field(default_factory=dict)
    map_of: str = ""
    of_weights: Callable[[Config, Mapping[str, Array]], Mapping[str, Any]] = lambda c, weights: {}


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


def _llama(name: str, array: Array, c: Config) -> Given:
    if name.endswith((".q_proj.weight", ".k_proj.weight")):
        array = permuted(array, c["num_attention_heads" if ".q_proj." in name else "num_key_value_heads"])
    yield name, array


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


def _nemotron(name: str, array: Array, c: Config) -> Given:
    yield _mamba(name, array, c["n_groups"])


def _nemotron_3(name: str, array: Array, c: Config) -> Given:
    yield name, array + 1 if name.endswith("norm.weight") else array


def _falcon_h1(name: str, array: Array, c: Config) -> Given:
    """FalconH1Model.modify_tensors(): multipliers go into matrices."""
    part = name.rpartition(".weight")[0].rpartition(".")[2]
    rows, of_b = c["mamba_d_ssm"], c["mamba_n_groups"] * c["mamba_d_state"]
    at = c["attention_in_multiplier"]
    factors = {"down_proj": c["mlp_multipliers"][1], "gate_proj": c["mlp_multipliers"][0], "q_proj": at, "v_proj": at}
    factors |= {"k_proj": at * c["key_multiplier"], "o_proj": c["attention_out_multiplier"]}
    factors |= {"out_proj": c["ssm_out_multiplier"], "lm_head": c["lm_head_multiplier"]}
    factors |= {"embed_tokens": c["embedding_multiplier"]}
    if part == "in_proj":
        counts = (rows, rows, of_b, of_b, c["mamba_n_heads"])
        array = (
            array * np.repeat(np.float32(c["ssm_multipliers"]) * np.float32(c["ssm_in_multiplier"]), counts)[:, None]
        )
    yield _mamba(name, array * np.float32(factors.get(part, 1.0)), c["mamba_n_groups"])


def _deepseek(name: str, array: Array, c: Config) -> Given:
    heads, block = c["num_attention_heads"], f"blk.{name.split('.')[2]}" if ".layers." in name else ""
    if name.endswith("kv_b_proj.weight"):
        parts = array.reshape(heads, -1, c["kv_lora_rank"])
        keys, values = np.split(parts, [c["qk_nope_head_dim"]], axis=1)
        yield f"{block}.attn_k_b.weight", np.ascontiguousarray(keys.transpose(0, 2, 1))
        yield f"{block}.attn_v_b.weight", np.ascontiguousarray(values)
    else:
        yield name, array


def _ernie(name: str, array: Array, c: Config) -> Given:
    yield name, array[None] if name.endswith("e_score_correction_bias") else array


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


def _gemma3n(name: str, array: Array, c: Config) -> Given:
    """Gemma3NModel; matrices of streams are stacked by _stacked()."""
    yield f"{name}.weight" if name.endswith("_scale") else name, array


def _falcon(name: str, array: Array, c: Config) -> Given:
    if "query_key_value" in name:
        heads, groups = c["num_attention_heads"], c["num_kv_heads"]
        parts = array.reshape(groups, heads // groups + 2, c["hidden_size"] // heads, -1)
        pieces = (parts[:, :-2], parts[:, -2], parts[:, -1])
        array = np.concatenate([piece.reshape(-1, array.shape[1]) for piece in pieces])
    yield name, array


def _gptneox(name: str, array: Array, c: Config) -> Given:
    if "query_key_value" in name:
        parts = array.reshape(c["num_attention_heads"], 3, -1, *array.shape[1:])
        array = np.concatenate([parts[:, i].reshape(-1, *array.shape[1:]) for i in range(3)])
    yield name, array


def _minicpm(name: str, array: Array, c: Config) -> Given:
    """MiniCPMModel: as llama, and factors of long contexts."""
    if name == "model.norm.weight" and c.get("rope_scaling"):  # once: what else there is
        for which in ("long", "short"):
            yield f"rope_factors_{which}.weight", np.array(c["rope_scaling"][f"{which}_factor"], np.float32)
    yield from _llama(name, array, c)


def _ling(name: str, array: Array, c: Config) -> Given:
    """BailingMoeV2Model.filter_tensors()."""
    yield name.replace(".expert_bias", ".expert_bias.bias"), array


CONVERSIONS: Mapping[str, Conversion] = {
    "llama, InternLM 2": Conversion("internlm2", lambda c: {"rope.dimension_count": k.head_dim_of(c)}, _llama),
    "llama4_text": Conversion("llama4", k.llama4_keys),
    "minicpm": Conversion("minicpm", k.minicpm_keys, _minicpm),
    "exaone_moe": Conversion("exaone-moe", k.exaone_moe_keys),
    "bailing_moe": Conversion("bailingmoe2", k.ling_keys, _ling),
    "hunyuan_v1_moe": Conversion("hunyuan-moe", k.hunyuan_moe_keys),
    "qwen3_5_text": Conversion("qwen35", k.gated_delta_keys, _qwen3_5),
    "qwen3_5_moe_text": Conversion("qwen35moe", k.gated_delta_keys, _qwen3_5),
    "qwen3_next": Conversion("qwen3next", k.gated_delta_keys, _qwen3_next),
    "lfm2": Conversion("lfm2", k.short_conv_keys),
    "lfm2_moe": Conversion("lfm2moe", k.short_conv_keys),
    "gemma3n_text": Conversion("gemma3n", k.gemma3n_keys, _gemma3n),
    "gemma4_text": Conversion("gemma4", k.gemma4_keys, _gemma4),
    "falcon_h1": Conversion("falcon-h1", k.falcon_h1_keys, _falcon_h1),
    "falcon_h1, multipliers": Conversion("falcon-h1", k.falcon_h1_keys, _falcon_h1),
    "mamba2": Conversion("mamba2", k.mamba2_keys, _nemotron),
    "granitemoehybrid": Conversion("granitehybrid", k.granite_hybrid_keys, _granite_hybrid),
    "granitemoe": Conversion("granitemoe", k.granite_keys, _llama),
    "nemotron_h": Conversion("nemotron_h", k.nemotron_keys, _nemotron),
    "nemotron_h, experts": Conversion("nemotron_h_moe", k.nemotron_keys, _nemotron),
    "nemotron_h, experts of a latent": Conversion("nemotron_h_moe", k.nemotron_keys, _nemotron),
    "deepseek_v2": Conversion("deepseek2", k.deepseek_keys, _deepseek),
    "deepseek_v3": Conversion("deepseek2", k.deepseek_keys, _deepseek),
    "youtu": Conversion("deepseek2", k.youtu_keys, _deepseek),
    "glm4_moe_lite": Conversion("deepseek2", k.deepseek_keys, _deepseek),
    "ministral3": Conversion("mistral3", k.mistral3_keys, _llama),
    "mistral": Conversion("mistral3", k.mistral3_keys, _llama),
    "qwen3": Conversion("qwen3vl", k.qwen3_vl_keys),
    "qwen3_moe": Conversion("qwen3vlmoe", k.qwen3_vl_keys),
    "glm": Conversion("chatglm", k.chatglm_keys),
    "glm4": Conversion("glm4", lambda c: {"rope.dimension_count": k.rotated_of(c)}),
    "glm4_moe": Conversion("glm4moe", k.glm4_moe_keys),
    "ernie4_5": Conversion("ernie4_5"),
    "ernie4_5_moe": Conversion("ernie4_5-moe", k.ernie_keys, _ernie),
    "exaone": Conversion(
        "exaone",
        lambda c: {"block_count": c["num_layers"], "attention.layer_norm_rms_epsilon": c["layer_norm_epsilon"]},
    ),
    "exaone4": Conversion("exaone4", lambda c: k.window_keys(c) if c.get("sliding_window") else {}),
    "seed_oss": Conversion("seed_oss"),
    "olmoe": Conversion("olmoe"),
    "olmo3": Conversion("olmo2", lambda c: {**k.window_keys(c), "rope.freq_base_swa": c["rope_theta"]}),
    "starcoder2": Conversion("starcoder2"),
    "minimax_m2": Conversion(
        "minimax-m2",
        lambda c: {"rope.dimension_count": c["rotary_dim"], "expert_feed_forward_length": c["intermediate_size"]},
    ),
    "dots1": Conversion("dots1", lambda c: {**k.expert_keys(c), "expert_gating_func": 2}),
    "cohere2": Conversion(
        "cohere2",
        lambda c: {
            "logit_scale": c["logit_scale"],
            "rope.scaling.type": "none",
            "attention.sliding_window": c["sliding_window"],
        },
    ),
    "olmo": Conversion("olmo", lambda c: {"attention.layer_norm_epsilon": 1e-5}, _llama),
    "nemotron": Conversion("nemotron", lambda c: {"rope.dimension_count": k.rotated_of(c)}, _nemotron_3),
    "gpt_bigcode": Conversion(
        "starcoder", lambda c: {"attention.head_count_kv": 1, "feed_forward_length": c["n_inner"]}
    ),
    "arcee": Conversion("arcee", lambda c: {}, _llama),
    "hunyuan_v1_dense": Conversion("hunyuan-dense", k.hunyuan_keys),
    "cohere": Conversion("command-r", lambda c: {"logit_scale": c["logit_scale"], "rope.scaling.type": "none"}),
    "falcon": Conversion("falcon", k.falcon_keys, _falcon),
    "stablelm": Conversion(
        "stablelm",
        lambda c: {"rope.dimension_count": k.rotated_of(c), "use_parallel_residual": c["use_parallel_residual"]},
    ),
    "gpt_neox": Conversion("gptneox", k.gptneox_keys, _gptneox),
    "gpt2": Conversion("gpt2", lambda c: {"feed_forward_length": 4 * c["n_embd"]}),
    "phi": Conversion("phi2", lambda c: {"rope.dimension_count": k.rotated_of(c)}),
}
OLDER: Mapping[str, Conversion] = {
    "qwen3_next": Conversion("qwen3next", k.gated_delta_keys, _older_qwen3_next),
    "deepseek_v3": Conversion("deepseek2", k.older_deepseek_keys),
}


def write(
    path: Path,
    c: Config,
    weights: Mapping[str, Array],
    conversion: Conversion,
    kind: str = "F32",
    settings: Mapping[str, Any] | None = None,
    tokenizer: Callable[[Any], object] | None = None,
) -> None:
    """Args:
    weights: of the checkpoint, matrices of experts one by one.
    kind: of matrices whose rows are whole blocks of it; Q8_0 or F32.
    settings: instead of what would be written, or besides; None: no such key.
    tokenizer: adds one to a writer of the gguf package.
    """
    writer = gguf.GGUFWriter(str(path), conversion.arch)
    arch = next(
        number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == (conversion.map_of or conversion.arch)
    )
    written = {**k.common_keys(c), **conversion.keys(c), **(settings or {})}
    names = gguf.get_tensor_name_map(arch, 10)  # layers, of which tiny ones have fewer
    for key, value in written.items():
        add = {bool: writer.add_bool, float: writer.add_float32, int: writer.add_uint32, str: writer.add_string}
        if type(value) is int and value < 0:
            writer.add_int32(f"{conversion.arch}.{key}", value)
        elif value is not None:
            {**add, list: writer.add_array}[type(value)](f"{conversion.arch}.{key}", value)
    for key, value in conversion.of_weights(c, weights).items():
        writer.add_array(key, value)
    writer.add_bos_token_id(c.get("bos_token_id") or 0)
    if tokenizer is not None:
        tokenizer(writer)
    for name, array in _stacked(c, weights, conversion):
        for new, numbers in conversion.change(name, array, c):
            stored = new if new.startswith(("blk.", "rope_f", "hrm.")) else _stored_name(names, new, conversion.own)
            data, raw = np.ascontiguousarray(numbers, np.float32), {}
            is_float = any(part in stored for part in ("ffn_gate_inp", "ssm_norm", "per_layer_token", "hc_", "_ape"))
            if kind != "F32" and numbers.ndim > 1 and numbers.shape[-1] % 32 == 0 and not is_float:
                data, raw = (
                    gguf.quantize(data, gguf.GGMLQuantizationType[kind]),
                    {"raw_dtype": gguf.GGMLQuantizationType[kind]},
                )
            writer.add_tensor(stored, data.astype(np.int32) if "tid2eid" in stored else data, **raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _stored_name(names: Any, name: str, own: Mapping[str, str]) -> str:
    """By the package's own map, after what base.py and the converters do to names alone."""
    if name.startswith("model.hc_head.hc_"):
        return f"output_hc_{name.removeprefix('model.hc_head.hc_')}.weight"
    layer = re.fullmatch(r"(?:model|transformer|backbone)\.(?:layers|blocks|h)\.(\d+)\.(.+?)(\.weight|\.bias)?", name)
    if layer is not None and layer[2] in own:
        return f"blk.{layer[1]}.{own[layer[2]]}{layer[3] or ''}"
    for old, new in (("e_score_correction_bias", "e_score_correction.bias"), (".expert_bias", ".expert_bias.bias")):
        name = name.replace(old, new) if name.endswith(old) else name
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert found is not None, name
    return str(found)


def _stacked(c: Config, weights: Mapping[str, Array], conversion: Conversion) -> Given:
    """Matrices of all experts of a layer as one; of Gemma 4 gate and up, too; of all streams as one."""
    parts: dict[str, list[Array]] = {}
    for name, array in weights.items():
        if name.startswith("model.altup_"):
            parts.setdefault(f"{name.rsplit('.', 2)[0]}.weight", []).append(array)
            continue
        block, _, rest = name.partition(".experts.")
        if rest[:1].isdigit():
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
