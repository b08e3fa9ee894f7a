"""The config.json that the settings of a GGUF file amount to.

Called by models/__init__.py and weights.py. Settings of the architecture that nobody reads are refused, as keys of a
config.json are. Does not know what models compute.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import Fields
from albireo.models.gguf.own_settings import own_settings
from albireo.models.gguf.tensors import ROPE_FACTORS, GgufFile

#: general.architecture -> model_type. llama stands for Mistral too, and with experts for Mixtral.
ARCHITECTURES = {
    "llama": "llama",
    "qwen2": "qwen2",
    "qwen2moe": "qwen2_moe",
    "qwen3": "qwen3",
    "qwen3moe": "qwen3_moe",
    "phi3": "phi3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "granite": "granite",
    "olmo2": "olmo2",
    "smollm3": "smollm3",
    "gpt-oss": "gpt_oss",
}
#: In whose files the numbers of each rotary pair of q and k lie side by side.
_PAIRS_SIDE_BY_SIDE = ("llama", "granite", "smollm3")
#: Whose biases are said to be there or not by config.json.
_MAY_HAVE_BIASES = ("llama", "granite", "smollm3")
_MAX = 2**31 - 1
#: Tokens that end a text, besides the one that eos_token_id names, when the vocabulary has them as control tokens.
_ENDS = ("<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<end_of_turn>")
#: In a vocabulary that has these, <|end|> ends a message of an answer that goes on.
_ENDS_OF_TURNS = ("<|return|>", "<|call|>")
_CONTROL = 3
_ROUTERS = ("gate.weight", "router.weight")
_IGNORABLE = (
    "rope.scaling.finetuned",
    "tensor_data_layout",
    "vocab_size",
    "attention.causal",
)


def architecture_of(file: GgufFile) -> tuple[str, Fields]:
    """Name of the architecture, and its settings without the name before them. Raises: ModelError, UnsupportedModel."""
    where = str(file.path)
    name = Fields(file.settings, where).text("general.architecture")
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{where}: general.architecture={short(name)} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    own = {key.removeprefix(f"{name}."): value for key, value in file.settings.items() if key.startswith(f"{name}.")}
    return name, Fields({key: _same(value) for key, value in own.items()}, f"{where}: {name}")


def rotary_heads(file: GgufFile) -> dict[str, int]:
    """q_proj and k_proj -> heads, when rotary pairs lie side by side. See GgufFile.plan()."""
    name, fields = architecture_of(file)
    if name not in _PAIRS_SIDE_BY_SIDE:
        return {}
    heads = fields.integer("attention.head_count", 1, _MAX)
    return {"q_proj": heads, "k_proj": fields.integer("attention.head_count_kv", 1, _MAX, default=heads)}


def config_of(file: GgufFile) -> dict[str, Any]:
    """What config.json would hold.

    Raises: ModelError for a missing or impossible value; UnsupportedModel for a setting that is not computed.
    """
    name, fields = architecture_of(file)
    hidden, heads = fields.integer("embedding_length", 1, _MAX), fields.integer("attention.head_count", 1, _MAX)
    head_dim = fields.integer("attention.key_length", 1, _MAX, default=hidden // heads)
    if fields.integer("attention.value_length", 1, _MAX, default=head_dim) != head_dim:
        fields.unsupported("attention.value_length", fields.raw("attention.value_length"), f"supported: {head_dim}")
    rotated = fields.integer("rope.dimension_count", 1, _MAX, default=head_dim)
    vocab = file.shape("model.embed_tokens.weight")[0]
    tokens = Fields(file.settings, str(file.path))
    config = {
        "model_type": ARCHITECTURES[name],
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": fields.integer("feed_forward_length", 1, _MAX),
        "num_hidden_layers": fields.integer("block_count", 1, _MAX),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.integer("attention.head_count_kv", 1, _MAX, default=heads),
        "head_dim": head_dim,
        "max_position_embeddings": fields.integer("context_length", 1, _MAX),
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon", 1e-30, 1.0),
        "partial_rotary_factor": rotated / head_dim,
        "tie_word_embeddings": "lm_head.weight" not in file,
        "attention_bias": name in _MAY_HAVE_BIASES and "model.layers.0.self_attn.q_proj.bias" in file,
        "mlp_bias": name in _MAY_HAVE_BIASES and "model.layers.0.mlp.up_proj.bias" in file,
        "rope_parameters": _rope(file, fields, head_dim),
        "dtype": _dtype(file),
        "bos_token_id": tokens.optional_integer("tokenizer.ggml.bos_token_id", 0, _MAX),
        "eos_token_id": _ends(file.settings, tokens, vocab),
    }
    if name.endswith("moe") or fields.raw("expert_count"):
        config |= _experts(file, name, fields)
    config |= own_settings(name, fields, file, config)
    neutral = {"expert_count": (0,), "expert_used_count": (0,), "rope.scaling.attn_factor": (1.0,)}
    fields.refuse_unread(_IGNORABLE, neutral)
    return config


def _experts(file: GgufFile, name: str, fields: Fields) -> dict[str, Any]:
    """What is said of experts. Whether weights are renormalized is not: llama.cpp knows it of each architecture."""
    config: dict[str, Any] = {
        "num_local_experts": fields.integer("expert_count", 1, _MAX),
        "num_experts_per_tok": fields.integer("expert_used_count", 1, _MAX),
    }
    if name == "llama":
        return config | {"model_type": "mixtral"}
    if name == "gpt-oss":
        width = fields.integer("feed_forward_length", 1, _MAX)
        return config | {"intermediate_size": fields.integer("expert_feed_forward_length", 1, _MAX, default=width)}
    width = _rows(file, ".mlp.experts.0.up_proj.weight")
    config["moe_intermediate_size"] = fields.integer("expert_feed_forward_length", 1, _MAX, default=width)
    config["norm_topk_prob"] = name == "qwen3moe"
    layers = fields.integer("block_count", 1, _MAX)
    config["mlp_only_layers"] = [i for i in range(layers) if f"model.layers.{i}.mlp.gate.weight" not in file]
    if name == "qwen2moe":
        shared = file.shape(next((each for each in file.names if each.endswith(".shared_expert.up_proj.weight")), ""))[
            0
        ]
        key = "expert_shared_feed_forward_length"
        config["shared_expert_intermediate_size"] = fields.integer(key, 1, _MAX, default=shared)
    return config


def _rows(file: GgufFile, ending: str) -> int:
    """Of the first matrix of such a name. Raises: WeightMismatch when there is none."""
    return file.shape(next((name for name in file.names if name.endswith(ending)), ending))[0]


def _same(value: Any) -> Any:
    """An array of one number a layer is that number, where they are equal."""
    if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
        return value[0].item()
    return value.tolist() if isinstance(value, np.ndarray) else value


def _rope(file: GgufFile, fields: Fields, head_dim: int) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": fields.number("rope.freq_base", 1.0, 1e15, default=10000.0)}
    kind = fields.text("rope.scaling.type", "none")
    old = fields.number("rope.scale_linear", 1.0, 1e9, default=1.0)
    if kind == "none" and old != 1.0:
        kind = "linear"
    if kind not in ("none", "linear", "yarn"):
        fields.unsupported("rope.scaling.type", kind, "supported: none, linear, yarn")
    factor = fields.number("rope.scaling.factor", 1.0, 1e9, default=old)
    original = fields.optional_integer("rope.scaling.original_context_length", 1, _MAX)
    if kind != "none":
        rope |= {"rope_type": kind, "factor": factor}
        if kind == "yarn" and original is not None:
            rope["original_max_position_embeddings"] = original
    if ROPE_FACTORS in file:
        if kind != "none":
            fields.unsupported("rope.scaling.type", kind, f"the file has a tensor {ROPE_FACTORS} too")
        factors = file.tensor(ROPE_FACTORS).to_float32()
        if factors.shape != (head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
            raise ModelError(f"{file.path}: tensor {ROPE_FACTORS} must hold {head_dim // 2} positive numbers")
        rope |= {"rope_type": "freq_factors", "freq_factors": factors.tolist()}
    return rope


def _dtype(file: GgufFile) -> str:
    """Compute type: that of the matrices where they all are numbers of one type, else bfloat16. Routers are float32
    whatever the others are."""
    matrices = [name for name in file.names if len(file.shape(name)) > 1 and not name.endswith(_ROUTERS)]
    kinds = {file.dtype(name) for name in matrices}
    only = kinds.pop() if len(kinds) == 1 else None
    return only or "bfloat16"


def _ends(settings: dict[str, Any], tokens: Fields, vocab: int) -> list[int]:
    named = (tokens.optional_integer(f"tokenizer.ggml.{kind}_token_id", 0, _MAX) for kind in ("eos", "eot", "eom"))
    ends = [token_id for token_id in named if token_id is not None]
    texts, types = settings.get("tokenizer.ggml.tokens"), settings.get("tokenizer.ggml.token_type")
    if isinstance(texts, list) and isinstance(types, np.ndarray) and len(types) == len(texts):
        control = np.flatnonzero(types == _CONTROL).tolist()
        names = {texts[token_id] for token_id in control}
        wanted = {*_ENDS, *_ENDS_OF_TURNS} - ({"<|end|>"} if names.issuperset(_ENDS_OF_TURNS) else set())
        ends += [token_id for token_id in control if texts[token_id] in wanted]
    return [token_id for token_id in dict.fromkeys(ends) if token_id < vocab]
