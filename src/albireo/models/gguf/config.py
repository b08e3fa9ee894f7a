"""The config.json that the settings of a GGUF file amount to.

Called by opening.py and weights.py. Settings of the architecture that nobody reads are refused, as keys of a
config.json are. Does not know what models compute.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.errors import ModelError, UnsupportedModel, short
from albireo.json_file import Fields
from albireo.models.gguf import encoder_settings
from albireo.models.gguf.architecture import GgufArchitecture
from albireo.models.gguf.architectures import ARCHITECTURES
from albireo.models.gguf.put_back import Part
from albireo.models.gguf.stored import LONG_FACTORS, MAX, ROPE_FACTORS, SHORT_FACTORS, first_heads, one_of_layers
from albireo.models.gguf.tensors import GgufFile
from albireo.models.settings.layer_kinds import MAX_LAYERS

#: Tokens that end a text, besides the one that eos_token_id names, where the vocabulary has them as more than words, as
#: llama.cpp takes them: of Llama, Qwen, Phi, Granite, Gemma, DeepSeek, Kimi, MiniMax; where Gemma 4 waits for a tool.
_ENDS = (
    *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<EOT>", "_<EOT>"),
    *("<end_of_turn>", "<eos>", "<turn|>", "<|tool_response>", "<end_of_utterance>"),
    *("<｜end▁of▁sentence｜>", "[EOT]", "[EOS]", "[e~["),
)
#: In a vocabulary that has both of a pair, these end an answer, and <|end|> a message of one that goes on: of gpt-oss,
#: and of Solar Open.
_ENDS_OF_TURNS = (("<|return|>", "<|call|>"), ("<|flush|>", "<|calls|>"))
_CONTROL, _USER = 3, 4
#: Matrices that are float32 in every file, whatever the others are.
_FLOAT32 = (
    *(".A_log", ".gate.tid2eid", ".position_bias", "_hc.fn", "hc_head.hc_fn"),
    *(f"{module}.weight" for module in (".gate", ".wg", "shared_expert_gate", "router", "router.layer", "router.proj")),
    *(f"{module}.weight" for module in ("conv1d", "conv.conv", "wpe", "prediction_coefs", "correction_coefs")),
    *(f"{module}.weight" for module in ("position_embeddings", "token_type_embeddings")),
)
_IGNORABLE = (
    "rope.scaling.finetuned",
    "tensor_data_layout",
    "vocab_size",
)
#: What changes nothing: of experts, where there are none, or one group of them; of frequencies.
_NEUTRAL = {
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_group_count": (0, 1),
    "expert_group_used_count": (0, 1),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_ext_factor": (1.0,),
}
#: general.type -> what a file is that is no model.
_NO_MODELS = {
    "mmproj": "it holds what sees or hears for a model; give the model's file beside it, whose text part is run. For "
    "images give the checkpoint in Hugging Face layout",
    "adapter": "it is an adapter; give it with --lora, or --lora-modules, beside the model",
    "imatrix": "it says how much each input of a matrix counts when a model is quantized; give the model's file",
}
_EPS = {False: "attention.layer_norm_rms_epsilon", True: "attention.layer_norm_epsilon"}


def architecture_of(file: GgufFile) -> tuple[GgufArchitecture, Fields]:
    """The architecture, and its settings without its name before them. Raises: ModelError, UnsupportedModel."""
    where = str(file.path)
    kind = file.settings.get("general.type")
    if isinstance(kind, str) and kind in _NO_MODELS:
        raise UnsupportedModel(f"{where}: general.type={kind}: {_NO_MODELS[kind]}")
    name = Fields(file.settings, where).text("general.architecture")
    if name == "clip":
        raise UnsupportedModel(f"{where}: general.architecture=clip: {_NO_MODELS['mmproj']}")
    if name not in ARCHITECTURES:
        raise UnsupportedModel(
            f"{where}: general.architecture={short(name)} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    own = {key.removeprefix(f"{name}."): value for key, value in file.settings.items() if key.startswith(f"{name}.")}
    return ARCHITECTURES[name], Fields({key: _same(value) for key, value in own.items()}, f"{where}: {name}")


def parts_of(file: GgufFile) -> dict[str, Part]:
    """Tensors that converters changed, as they are to be read. See GgufFile.plan()."""
    known, fields = architecture_of(file)
    return {name: part for put_back in known.put_back for name, part in put_back(file, fields)}


def config_of(file: GgufFile) -> dict[str, Any]:
    """What config.json would hold.

    Raises: ModelError for a missing or impossible value; UnsupportedModel for a setting that is not computed.
    """
    known, fields = architecture_of(file)
    # where nothing attends there are 0
    hidden, heads = fields.integer("embedding_length", 1, MAX), first_heads(fields)
    ends = known.all_ends
    vocab = file.shape(f"{ends['token_embd']}.weight")[0]
    tokens = Fields(file.settings, str(file.path))
    config = {
        "model_type": known.model_type,
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_hidden_layers": _layers(fields),
        "num_attention_heads": heads,
        "max_position_embeddings": fields.integer("context_length", 1, MAX),
        "rms_norm_eps": _eps(fields, known),
        "tie_word_embeddings": f"{ends['output']}.weight" not in file,
        "attention_bias": known.has_biases and "model.layers.0.self_attn.q_proj.bias" in file,
        "mlp_bias": known.has_biases and "model.layers.0.mlp.up_proj.bias" in file,
        "dtype": _dtype(file),
        "bos_token_id": tokens.optional_integer("tokenizer.ggml.bos_token_id", 0, MAX),
        "eos_token_id": _ends(file.settings, tokens, vocab),
        **_head(file, fields, known, hidden // max(heads, 1)),
    }
    if not known.is_by_layer:
        config["num_key_value_heads"] = one_of_layers(fields, "attention.head_count_kv", heads)
        width = hidden if fields.raw("expert_feed_forward_length") else None  # of FFNs that no layer has
        config["intermediate_size"] = one_of_layers(fields, "feed_forward_length", width)
    config |= known.settings(fields, file, config) | encoder_settings.pooling(fields, not known.is_encoder)
    fields.refuse_unread(_IGNORABLE, {**_NEUTRAL, "attention.causal": (not known.is_encoder,)})
    _refuse_unread_factors(file, config["rope_parameters"] or {})
    return {known.keys.get(key, key): value for key, value in config.items()}


def _layers(fields: Fields) -> int:
    """Without those that guess further tokens, which are counted there."""
    layers = fields.integer("block_count", 1, MAX_LAYERS)
    guessing = fields.integer("nextn_predict_layers", 0, MAX, default=0)
    if guessing >= layers:
        fields.fail("nextn_predict_layers", guessing, f"must be less than block_count={layers}")
    return layers - guessing


def _eps(fields: Fields, known: GgufArchitecture) -> float:
    """Some files say both, or the other one."""
    keys = [key for key in (_EPS[known.is_layer_norm], _EPS[not known.is_layer_norm]) if fields.raw(key) is not None]
    return fields.number(keys[0] if keys else _EPS[known.is_layer_norm], 1e-30, 1.0)


def _head(file: GgufFile, fields: Fields, known: GgufArchitecture, default: int) -> dict[str, Any]:
    head_dim = fields.integer("attention.key_length", 1, MAX, default=default)
    if not known.is_latent and fields.integer("attention.value_length", 1, MAX, default=head_dim) != head_dim:
        fields.unsupported("attention.value_length", fields.raw("attention.value_length"), f"supported: {head_dim}")
    rotated = fields.integer("rope.dimension_count", 1, MAX, default=head_dim)
    return {
        "head_dim": head_dim,
        "partial_rotary_factor": rotated / head_dim,
        "rope_parameters": _rope(file, fields, head_dim),
    }


def _same(value: Any) -> Any:
    """An array of one number a layer is that number, where they are equal."""
    if isinstance(value, np.ndarray) and len(value) and (value == value[0]).all():
        return value[0].item()
    return value.tolist() if isinstance(value, np.ndarray) else value


def _rope(file: GgufFile, fields: Fields, head_dim: int) -> dict[str, Any]:
    rope: dict[str, Any] = {"rope_theta": fields.number("rope.freq_base", 1.0, 1e15, default=10000.0)}
    old = fields.number("rope.scale_linear", 1.0, 1e9, default=1.0)
    factor = fields.number("rope.scaling.factor", 1.0, 1e9, default=old)
    kind = fields.text("rope.scaling.type", "none" if factor == 1.0 else "linear")
    if kind == "longrope" and LONG_FACTORS in file:  # which settings of its own read
        kind = "none" if factor == 1.0 else "linear"
    if kind not in ("none", "linear", "yarn"):
        fields.unsupported("rope.scaling.type", kind, "supported: none, linear, yarn")
    original = fields.optional_integer("rope.scaling.original_context_length", 1, MAX)
    if kind != "none":
        rope |= {"rope_type": kind, "factor": factor}
        if kind == "yarn":
            rope |= _yarn(fields, original)
    if ROPE_FACTORS in file:
        if kind != "none":
            fields.unsupported("rope.scaling.type", kind, f"the file has a tensor {ROPE_FACTORS} too")
        factors = file.tensor(ROPE_FACTORS).to_float32()
        if factors.shape != (head_dim // 2,) or not (np.isfinite(factors) & (factors > 0)).all():
            raise ModelError(f"{file.path}: tensor {ROPE_FACTORS} must hold {head_dim // 2} positive numbers")
        rope |= {"rope_type": "freq_factors", "freq_factors": factors.tolist()}
    return rope


def _refuse_unread_factors(file: GgufFile, rope: Mapping[str, Any]) -> None:
    for name in (SHORT_FACTORS, LONG_FACTORS):
        if name in file and rope.get("rope_type") != "longrope":
            raise UnsupportedModel(f"{file.path}: tensor {name} is not supported but in files of phi3 and minicpm")


def _yarn(fields: Fields, original: int | None) -> dict[str, Any]:
    """What is said, and nothing of what is not."""
    said = {
        "original_max_position_embeddings": original,
        "attention_factor": fields.optional_number("rope.scaling.yarn_attn_factor", 1e-6, 1e6),
        "beta_fast": fields.optional_number("rope.scaling.yarn_beta_fast", 1e-6, 1e6),
        "beta_slow": fields.optional_number("rope.scaling.yarn_beta_slow", 1e-6, 1e6),
    }
    return {key: value for key, value in said.items() if value is not None}


def _dtype(file: GgufFile) -> str:
    """Compute type: that of the matrices where they all are numbers of one type, else bfloat16."""
    matrices = [name for name in file.names if len(file.shape(name)) > 1 and not name.endswith(_FLOAT32)]
    kinds = {file.dtype(name) for name in matrices}
    only = kinds.pop() if len(kinds) == 1 else None
    return only or "bfloat16"


def _ends(settings: Mapping[str, Any], tokens: Fields, vocab: int) -> list[int]:
    named = (tokens.optional_integer(f"tokenizer.ggml.{kind}_token_id", 0, MAX) for kind in ("eos", "eot", "eom"))
    ends = [token_id for token_id in named if token_id is not None]
    texts, types = settings.get("tokenizer.ggml.tokens"), settings.get("tokenizer.ggml.token_type")
    if isinstance(texts, list) and isinstance(types, np.ndarray) and len(types) == len(texts):
        special = np.flatnonzero((types == _CONTROL) | (types == _USER)).tolist()
        names = {texts[token_id] for token_id in special}
        goes_on = any(names.issuperset(pair) for pair in _ENDS_OF_TURNS)
        wanted = {*_ENDS, *itertools.chain(*_ENDS_OF_TURNS)} - ({"<|end|>"} if goes_on else set())
        ends += [token_id for token_id in special if texts[token_id] in wanted]
    return [token_id for token_id in dict.fromkeys(ends) if token_id < vocab]
