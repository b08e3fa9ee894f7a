"""GGUF files of tiny models, written by the gguf package under the names and in the row order of llama.cpp.

The names, the order of rows and the keys are written out here, independently of albireo.models.gguf.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from quantization.formats.gguf_random import random_blocks, scaled
from tiny_models import random_weights

gguf = pytest.importorskip("gguf")
Array = NDArray[np.float32]

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": LLAMA,
    "llama, tied": LLAMA | {"tie_word_embeddings": True, "num_key_value_heads": 4},
    "qwen2": LLAMA | {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rope_theta": 1e6},
    "qwen3": LLAMA | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
}
#: With experts: five of 256 channels, two or three a token.
_EXPERTS = {"moe_intermediate_size": 256, "num_experts_per_tok": 3, "decoder_sparse_step": 1, "mlp_only_layers": []}
_EXPERTS |= {"num_local_experts": 5, "num_experts": 5}
MIXTURES: dict[str, dict[str, Any]] = {
    "mixtral": LLAMA
    | {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "intermediate_size": 256}
    | {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen2_moe": LLAMA
    | {"model_type": "qwen2_moe", "architectures": ["Qwen2MoeForCausalLM"], "norm_topk_prob": False}
    | _EXPERTS
    | {"shared_expert_intermediate_size": 512},
    "qwen3_moe": LLAMA
    | {"model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "norm_topk_prob": True}
    | _EXPERTS
    | {"mlp_only_layers": [1]},
    "gpt_oss": LLAMA
    | {"model_type": "gpt_oss", "architectures": ["GptOssForCausalLM"], "intermediate_size": 256}
    | {"num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 5, "attention_bias": True}
    | {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "truncate": False}},
}
OWN_CONFIGS: dict[str, dict[str, Any]] = {
    "phi3": LLAMA
    | {
        "model_type": "phi3",
        "architectures": ["Phi3ForCausalLM"],
        "sliding_window": 40,
        "pad_token_id": 0,
        "partial_rotary_factor": 0.75,
        "original_max_position_embeddings": 4,
        "rope_scaling": {
            "rope_type": "longrope",
            "attention_factor": 1.25,
            "short_factor": [1.0 + 0.1 * i for i in range(24)],
            "long_factor": [1.0 + 0.5 * i for i in range(24)],
        },
    },
    "gemma": LLAMA
    | {
        "model_type": "gemma",
        "architectures": ["GemmaForCausalLM"],
        "tie_word_embeddings": True,
        "hidden_act": "gelu_pytorch_tanh",
    },
    "gemma2": LLAMA
    | {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 64,
        "sliding_window": 24,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3": LLAMA
    | {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 64,
        "sliding_window": 24,
        "num_hidden_layers": 6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 10000.0,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 6,
    },
    "granite": LLAMA
    | {
        "model_type": "granite",
        "architectures": ["GraniteForCausalLM"],
        "tie_word_embeddings": True,
        "embedding_multiplier": 12.0,
        "residual_multiplier": 0.22,
        "attention_multiplier": 0.15,
        "logits_scaling": 8.0,
    },
    "olmo2": LLAMA | {"model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"], "rope_theta": 5e5},
    "smollm3": LLAMA
    | {
        "model_type": "smollm3",
        "architectures": ["SmolLM3ForCausalLM"],
        "tie_word_embeddings": True,
        "num_hidden_layers": 4,
        "rope_theta": 5e6,
        "pad_token_id": 0,
    },
}
CONFIGS |= OWN_CONFIGS
#: What llama.cpp calls an architecture, where not as transformers does.
_ARCHITECTURES = {
    "gemma3_text": "gemma3",
    "mixtral": "llama",
    "qwen2_moe": "qwen2moe",
    "qwen3_moe": "qwen3moe",
    "gpt_oss": "gpt-oss",
}
#: Keys that its converters write besides, from those of config.json.
_KEYS = {
    "sliding_window": "attention.sliding_window",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "attention_multiplier": "attention.scale",
    "logits_scaling": "logit_scale",
}
_OWN_NAMES = {
    "self_attn.qkv_proj": "attn_qkv",
    "mlp.gate_up_proj": "ffn_up",
    "post_feedforward_layernorm": "post_ffw_norm",
    "pre_feedforward_layernorm": "ffn_norm",
}
_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp",
    "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
    "mlp.shared_expert.gate_proj": "ffn_gate_shexp",
    "mlp.shared_expert.up_proj": "ffn_up_shexp",
    "mlp.shared_expert.down_proj": "ffn_down_shexp",
    "block_sparse_moe.gate": "ffn_gate_inp",
    "mlp.router": "ffn_gate_inp",
}


_EXPERT_KEYS = {
    "expert_count": "num_local_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_shared_feed_forward_length": "shared_expert_intermediate_size",
}
_STACKED = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}


def stacked_name(name: str) -> str:
    """Of the tensor of all experts that a matrix of one is in."""
    parts = name.split(".")
    return f"blk.{parts[2]}.ffn_{_STACKED[parts[-2]]}_exps.{parts[-1]}"


def gguf_name(name: str, arch: str = "llama") -> str:
    if name.endswith(".sinks"):
        return f"blk.{name.split('.')[2]}.attn_sinks.weight"
    stem, _, kind = name.rpartition(".")
    if stem.startswith("model.layers."):
        number, _, part = stem.removeprefix("model.layers.").partition(".")
        names = _NAMES | _OWN_NAMES
        if arch in ("gemma2", "gemma3", "olmo2", "gpt-oss"):
            names["post_attention_layernorm"] = "post_attention_norm"
        return f"blk.{number}.{names[part]}.{kind}"
    return f"{_NAMES[stem]}.{kind}"


def _add_rope(writer: Any, config: Mapping[str, Any], keys: dict[str, Any]) -> None:
    """As the converters of Phi-3, Gemma 3 and gpt-oss do."""
    scaling = config.get("rope_scaling") or {}
    if scaling.get("rope_type") == "linear":
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": scaling["factor"]}
    if scaling.get("rope_type") == "yarn":
        keys |= {"rope.scaling.type": "yarn", "rope.scaling.factor": scaling["factor"]}
        keys["rope.scaling.original_context_length"] = scaling["original_max_position_embeddings"]
    if "partial_rotary_factor" in config:
        keys["rope.dimension_count"] = int(config["head_dim"] * config["partial_rotary_factor"])
    if scaling.get("rope_type") == "longrope":
        original = config["original_max_position_embeddings"]
        keys["rope.scaling.original_context_length"] = original
        keys["rope.scaling.attn_factor"] = scaling["attention_factor"]
        for which in ("long", "short"):
            writer.add_tensor(f"rope_factors_{which}.weight", np.asarray(scaling[f"{which}_factor"], np.float32))


def permuted(weight: Array, heads: int) -> Array:
    """LlamaModel.permute() of llama.cpp's converter: from halves of a head to pairs side by side."""
    return weight.reshape(heads, 2, len(weight) // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)


def quantized(weight: Array, kind: str, seed: int) -> tuple[NDArray[np.uint8], Array]:
    """Bytes of a type and the numbers they stand for. Types the package cannot write get random bits of that size."""
    number = gguf.GGMLQuantizationType[kind]
    try:
        data = gguf.quantize(weight, number)
    except NotImplementedError:
        size = gguf.GGML_QUANT_SIZES[number][0]
        blocks = random_blocks(kind, weight.size // size, np.random.default_rng(seed))
        # so that numbers have about the size of the weights
        whole = np.abs(gguf.dequantize(scaled(kind, blocks, np.ones(1)), number)).mean()
        data = scaled(kind, blocks, np.array([np.abs(weight).mean() / whole])).reshape(len(weight), -1)
    return data, gguf.dequantize(data, number)


_MIXED = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K", "F16", "F32", "BF16")
#: Of files as llama.cpp's presets make them: by the last parts of names, the type of the others first.
PRESETS: dict[str, dict[str, str]] = {
    "preset Q2_K": {"": "Q2_K", "v_proj": "Q4_K", "o_proj": "Q3_K", "down_proj": "Q3_K", "lm_head": "Q6_K"},
    "preset Q3_K_M": {"": "Q3_K", "v_proj": "Q5_K", "o_proj": "Q4_K", "down_proj": "Q4_K", "lm_head": "Q6_K"},
    "preset IQ4_XS": {"": "IQ4_XS", "v_proj": "Q5_K", "down_proj": "Q5_K", "lm_head": "Q6_K"},
    "preset IQ3_M": {"": "IQ3_S", "v_proj": "Q4_K", "o_proj": "Q4_K", "down_proj": "Q4_K", "lm_head": "Q6_K"},
    "preset IQ3_XXS": {"": "IQ3_XXS", "k_proj": "IQ2_S", "v_proj": "IQ3_S", "o_proj": "IQ3_S", "lm_head": "Q5_K"},
    "preset IQ2_M": {"": "IQ2_S", "v_proj": "Q4_K", "o_proj": "IQ3_S", "down_proj": "IQ3_S", "lm_head": "Q5_K"},
    "preset IQ2_XXS": {"": "IQ2_XXS", "v_proj": "Q4_K", "down_proj": "Q2_K", "embed_tokens": "Q2_K", "lm_head": "Q5_K"},
    "preset IQ1_M": {"": "IQ1_M", "o_proj": "IQ2_XXS", "v_proj": "Q4_K", "embed_tokens": "Q2_K", "lm_head": "Q5_K"},
    "preset IQ1_S": {"": "IQ1_S", "o_proj": "IQ2_XS", "v_proj": "Q4_K", "embed_tokens": "Q2_K", "lm_head": "Q5_K"},
    "preset IQ4_NL": {"": "IQ4_NL", "v_proj": "Q5_1", "lm_head": "Q6_K"},
    "preset TQ1_0": {"": "TQ1_0", "embed_tokens": "Q4_K", "lm_head": "Q6_K"},
    "preset TQ2_0": {"": "TQ2_0", "embed_tokens": "Q4_K", "lm_head": "Q6_K"},
}


def _type_of(name: str, kind: str, i: int) -> str:
    """Of the matrix i."""
    if kind == "mixed":
        return _MIXED[i % len(_MIXED)]
    preset = PRESETS.get(kind, {"": kind})
    return preset.get(name.split(".")[-2], preset[""])


def words(writer: Any) -> None:
    """A tokenizer of 96 tokens: 93 characters, one merge, two that are special."""
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([*(chr(ord("!") + i) for i in range(93)), "ab", "<94>", "<95>"])
    writer.add_token_types([1] * 94 + [3] * 2)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(94)
    writer.add_eos_token_id(95)


def write_gguf(
    path: Path,
    config: Mapping[str, Any],
    kind: str = "F32",
    seed: int = 0,
    change: Callable[[Any, dict[str, Any]], object] = lambda writer, keys: None,
    scale: float = 1.0,
    tokenizer: Callable[[Any], object] | None = None,
    split: Mapping[str, Any] | None = None,
) -> dict[str, Array]:
    """Write a model. Returns: every weight of the float model, as the numbers that stand in the file.

    Args:
        kind: type of the matrices; "mixed": another one for each; or one of PRESETS.
        change: may add keys to the writer, and alter the settings of the architecture before they are written.
        tokenizer: adds one.
        split: how the writer cuts the file into parts, whose names are made of path.
    """
    arch, heads = _ARCHITECTURES.get(config["model_type"], config["model_type"]), config["num_attention_heads"]
    writer = gguf.GGUFWriter(str(path), arch, **(split or {}))
    keys: dict[str, Any] = {
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "feed_forward_length": config["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "attention.key_length": config["head_dim"],
        "attention.value_length": config["head_dim"],
        "rope.dimension_count": config["head_dim"],
        "rope.freq_base": config["rope_theta"],
        "vocab_size": config["vocab_size"],
    }
    for key, name in _EXPERT_KEYS.items():
        if config.get(name):
            keys[key] = config[name]
    keys |= {ours: config[key] for key, ours in _KEYS.items() if config.get(key) is not None}
    _add_rope(writer, config, keys)
    change(writer, keys)
    for key, value in keys.items():
        add = {
            bool: writer.add_bool,
            float: writer.add_float32,
            int: writer.add_uint32,
            str: writer.add_string,
            list: writer.add_array,
        }
        add[type(value)](f"{arch}.{key}", value)
    if tokenizer:
        tokenizer(writer)
    else:
        writer.add_bos_token_id(config["bos_token_id"])
        writer.add_eos_token_id(config["eos_token_id"])
    numbers = random_weights(config, seed)
    experts: dict[str, tuple[str, list[NDArray[Any]]]] = {}
    for i, (name, weight) in enumerate(numbers.items()):
        own = "F32" if weight.ndim == 1 else _type_of(name, kind, i)
        if ".experts." in name:  # all of a layer are one tensor, and of one type
            own = experts.get(stacked_name(name), (own, []))[0]
            data, numbers[name] = (weight, weight) if own == "F32" else quantized(weight, own, seed + i)
            experts.setdefault(stacked_name(name), (own, []))[1].append(data)
            continue
        if name.endswith(("gate.weight", "router.weight")):
            own = "F32"
            weight = weight[0] if len(weight) == 1 else weight  # as the converter writes the shared expert's
        lying, back = weight, lambda array: array
        if arch.startswith("gemma") and name.endswith("norm.weight"):
            lying = weight + np.float32(1)
        if arch in ("llama", "granite", "smollm3") and name.split(".")[-2] in ("q_proj", "k_proj"):
            count = heads if ".q_proj." in name else config["num_key_value_heads"]
            lying = permuted(weight, count)
            rows = np.argsort(permuted(np.arange(len(weight), dtype=np.float32), count).astype(int), kind="stable")
            back = lambda array, rows=rows: array[rows]  # noqa: E731
        if own == "F32":
            writer.add_tensor(gguf_name(name, arch), lying)
        elif own == "F16":
            writer.add_tensor(gguf_name(name, arch), lying.astype(np.float16))
            numbers[name] = weight.astype(np.float16).astype(np.float32)
        else:
            data, stands_for = quantized(lying, own, seed + i)
            writer.add_tensor(gguf_name(name, arch), data, raw_dtype=gguf.GGMLQuantizationType[own])
            numbers[name] = np.ascontiguousarray(back(stands_for))
    for name, (own, parts) in experts.items():
        raw = {} if own == "F32" else {"raw_dtype": gguf.GGMLQuantizationType[own]}
        writer.add_tensor(name, np.stack(parts), **raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return numbers
