"""Settings of a GGUF file of a model with LayerNorms, as the keys that its config.json has.

Named by the tables. What llama.cpp knows of an architecture and writes into no file is written down
here. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.mixture_settings import counts
from albireo.models.gguf.own_settings import layer_types, phi3
from albireo.models.gguf.stored import Stored, optional_scale, window_of

#: What queries and keys are multiplied by where a context is stretched.
_MSCALE_OF_PHIMOE = 1.243163121016122
_Q_BIAS = "model.layers.0.self_attn.q_proj.bias"


def starcoder2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"use_bias": _Q_BIAS in file, "sliding_window": window_of(fields)}


def cohere(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"attention_bias": _Q_BIAS in file, "logit_scale": optional_scale(fields, "logit_scale")}


def cohere2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Windows are in three of four layers, whatever a file says of them."""
    own = {"sliding_window": window_of(fields), **layer_types(fields, config, 4)}
    return {**cohere(fields, file, config), **own}


def falcon(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """The first Falcons have one head of keys; those since have groups, and one norm for both blocks, or two."""
    is_new = config["num_key_value_heads"] > 1
    own: dict[str, Any] = {"new_decoder_architecture": is_new, "multi_query": not is_new, "parallel_attn": True}
    if is_new:
        has_two = "transformer.h.0.ln_attn.weight" in file
        own |= {"num_kv_heads": config["num_key_value_heads"], "num_ln_in_parallel_attn": 2 if has_two else 1}
    return own | {
        "bias": "transformer.h.0.self_attention.query_key_value.bias" in file,
        "num_key_value_heads": None,
    }


def stablelm(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "use_qkv_bias": _Q_BIAS in file,
        "use_parallel_residual": fields.flag("use_parallel_residual", True),
    }


def gptneox(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    has_bias = "gpt_neox.layers.0.attention.query_key_value.bias" in file
    return {
        "attention_bias": has_bias,
        "use_parallel_residual": fields.flag("use_parallel_residual", True),
    }


def gpt2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"rope_parameters": None, "partial_rotary_factor": None, "num_key_value_heads": None}


def starcoder(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    is_shared = config["num_key_value_heads"] == 1
    return {**gpt2(fields, file, config), "multi_query": is_shared}


def jais2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"attention_bias": _Q_BIAS in file, "mlp_bias": "model.layers.0.mlp.up_proj.bias" in file}


def bloom(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return gpt2(fields, file, config) | {"head_dim": None, "intermediate_size": None}


def mpt(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Raises: UnsupportedModel where scores do not fall with distance."""
    key, span = "attention.max_alibi_bias", fields.number("attention.max_alibi_bias", 0.0, 64.0, default=0.0)
    if not span:
        fields.unsupported(key, span, "supported: 8, and other numbers above 0")
    limit = optional_scale(fields, "attention.clamp_kqv")
    own = {"alibi": True, "alibi_bias_max": span} | ({} if limit is None else {"clip_qkv": limit})
    return {**gpt2(fields, file, config), "head_dim": None, "intermediate_size": None, "attn_config": own}


def phimoe(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Phi-3.5-MoE. How near experts must be to each other no file says, and files have another attention factor than
    the model: both are as in the model."""
    own = phi3(fields, file, config)
    if "rope_parameters" in own:
        del own["rope_parameters"]["attention_factor"]
        own["rope_parameters"] |= dict.fromkeys(("short_mscale", "long_mscale"), _MSCALE_OF_PHIMOE)
    return {
        **own,
        **counts(fields),
        "attention_bias": _Q_BIAS in file,
        "lm_head_bias": "lm_head.bias" in file,
    }


def dbrx(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **counts(fields),
        "clip_qkv": fields.number("attention.clamp_kqv", 1e-6, 1e6),
        "head_dim": None,
        "partial_rotary_factor": None,
    }


def phi2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {}
