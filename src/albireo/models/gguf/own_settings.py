"""Settings that only some architectures have in a GGUF file, as the keys that their config.json has: of models with
RMS norms whose layers have one FFN.

Named by the tables. What llama.cpp knows of an architecture and writes into no file is written down
here. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.errors import ModelError
from albireo.json_file import Fields
from albireo.models.gguf.stored import (
    LONG_FACTORS,
    MAX,
    SHORT_FACTORS,
    Stored,
    by_layer,
    numbers_by_layer,
    optional_scale,
    window_of,
)
from albireo.models.settings.pooling_rule import GGUF_LINEARS

#: Layers of the models of 27 billion weights, whose scores are multiplied by the root of another width.
_LARGEST = {"gemma2": 46, "gemma3": 62}
_LOCAL_THETA = 10000.0
#: Linears behind pooling.
_LINEARS = ("dense_2", "dense_3")
_Q_BIAS = "model.layers.0.self_attn.q_proj.bias"


def without_windows(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"use_sliding_window": False}


def qwen2_vl(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """The text part of Qwen2-VL and Qwen2.5-VL."""
    without_places(fields)
    return without_windows(fields, file, config)


def qwen3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    without_places(fields)
    return {}


def without_places(fields: Fields) -> None:
    """Of models that read images: which pairs follow which of three positions, which are equal in text; and layers that
    images are added to."""
    for key in ("rope.dimension_sections", "n_deepstack_layers"):
        fields.raw(key)


def mistral3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Ministral 3 where queries grow with positions; else the text part of Mistral Small 3.1."""
    growth = optional_scale(fields, "attention.temperature_scale")
    if growth is None:
        return {"model_type": "mistral", "sliding_window": None}
    rope = {**config["rope_parameters"], "llama_4_scaling_beta": growth, "mscale": 1.0}
    rope["mscale_all_dim"] = fields.optional_number("rope.scaling.yarn_log_multiplier", 0.0, 1e3)
    return {"rope_parameters": rope}


def biases(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Of q, k and v, which a file shows; config.json may leave out that there are any."""
    return {"attention_bias": _Q_BIAS in file or _Q_BIAS.replace("q_proj", "qkv_proj") in file}


def granite(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Files of Granite 4.0 without experts or states call the width of FFNs that of a shared expert's."""
    width = fields.optional_integer("expert_shared_feed_forward_length", 0, MAX)
    for part in ("conv_kernel", "state_size", "group_count", "inner_size", "time_step_rank"):
        fields.raw(f"ssm.{part}")  # of layers that there are none of
    return {**granite_multipliers(fields, config), **({"intermediate_size": width} if width else {})}


def granite_multipliers(fields: Fields, config: Mapping[str, Any]) -> dict[str, Any]:
    """Raises: UnsupportedModel where no layer rotates, of which the key of granite_rotates() tells."""
    if not granite_rotates(fields):
        fields.unsupported("rope.scaling.finetuned", False, "it stands for layers that do not rotate; supported: true")
    return granite_scales(fields, config)


def granite_rotates(fields: Fields) -> bool:
    """Whether there are rotations, which is said by a key that other files have for something else."""
    return fields.flag("rope.scaling.finetuned", True)


def granite_scales(fields: Fields, config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "embedding_multiplier": optional_scale(fields, "embedding_scale"),
        "residual_multiplier": optional_scale(fields, "residual_scale"),
        "attention_multiplier": optional_scale(fields, "attention.scale") or config["head_dim"] ** -0.5,
        "logits_scaling": optional_scale(fields, "logit_scale"),
    }


def smollm3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"no_rope_layer_interval": 4, "use_sliding_window": False}


def apertus(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Slopes of xIELU are tensors of the model; what no training changes is looked at. See put_back.slopes()."""
    of_all = Fields(file.settings, fields.where)  # under no architecture's name
    for key, wanted in (("xielu.beta", 0.5), ("xielu.eps", -1e-6)):
        found = numbers_by_layer(of_all, key, config["num_hidden_layers"])
        if any(abs(each - wanted) > 0.01 * abs(wanted) for each in found):  # of which files have 16 bits, too
            of_all.unsupported(key, found[0], f"supported: {wanted}")
    return {}


def olmo(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """OLMo 3 is OLMo 2 with windows, whose layers without one have their rotation scaled."""
    window = window_of(fields)
    if window is None:
        return {}
    theta = fields.optional_number("rope.freq_base_swa", 1.0, 1e15)
    own = {} if theta is None else {"rope_local_base_freq": theta}
    return own | {"model_type": "olmo3", "sliding_window": window, **layer_types(fields, config, 4)}


def exaone(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Windows are in three of four layers of the model of 32 billion weights, and in none of the smaller one."""
    window = window_of(fields)
    if window is None:
        return {"sliding_window": None}
    return {"sliding_window": window, **layer_types(fields, config, 4)}


def hrm_text(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """HRM Text, whose layers are counted as often as they are gone through."""
    return {
        "num_layers_per_stack": fields.integer("hrm.layers_per_stack", 1, MAX),
        "H_cycles": fields.integer("hrm.h_cycles", 1, MAX),
        "L_cycles": fields.integer("hrm.l_cycles", 1, MAX),
        "prefix_lm": fields.flag("hrm.prefix_lm", False),
        "embedding_scale": fields.number("embedding_scale", 1e-6, 1e6, default=1.0),
    }


def decilm(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """DeciLM and Nemotron NAS, some layers of which have no attention, or no FFN."""
    layers = config["num_hidden_layers"]
    of_layers = ("attention.head_count", "attention.head_count_kv", "feed_forward_length")
    heads, kv_heads, widths = (by_layer(fields, key, layers) for key in of_layers)
    if {each for each in heads if each} != {max(heads)}:
        fields.unsupported("attention.head_count", heads, "layers that attend must have as many heads as each other")
    if any(each and not kv for each, kv in zip(heads, kv_heads, strict=True)):
        fields.unsupported("attention.head_count_kv", kv_heads, "0 beside heads: a layer that is a matrix")
    blocks = [
        {
            "attention": {"n_heads_in_group": max(heads) // kv if kv else None, "no_op": not kv},
            "ffn": {"intermediate_size": width or None, "no_op": not width},
        }
        for kv, width in zip(kv_heads, widths, strict=True)
    ]
    return {"num_attention_heads": max(heads), "block_configs": blocks}


def granite_swa(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Granite with windows; with experts, one below the other's gate and up, where a file has any."""
    layers = config["num_hidden_layers"]
    rotates = [1] * layers
    if fields.raw("attention.rope_pattern") is not None:
        rotates = by_layer(fields, "attention.rope_pattern", layers)
    theta = config["rope_parameters"]["rope_theta"]
    own = {
        **granite_scales(fields, config),
        **layer_types(fields, config, 4),
        "sliding_window": window_of(fields),
        "layer_rope_theta": [theta if each else 0 for each in rotates],
    }
    if not fields.raw("expert_count"):
        return own
    shared = fields.optional_integer("expert_shared_feed_forward_length", 0, MAX)
    return own | {
        "model_type": "granitemoe_swa",
        "num_local_experts": fields.integer("expert_count", 1, MAX),
        "num_experts_per_tok": fields.integer("expert_used_count", 1, MAX),
        "shared_intermediate_size": shared or 0,
    }


def layer_types(fields: Fields, config: Mapping[str, Any], period: int) -> dict[str, Any]:
    """Which layers have a window: told one by one; or all but each so many-th."""
    layers, key = config["num_hidden_layers"], "attention.sliding_window_pattern"
    told = fields.raw(key)
    if isinstance(told, (list, bool)):
        has_window = by_layer(fields, key, layers)
    else:
        period = fields.integer(key, 1, MAX, default=period)
        has_window = [(i + 1) % period for i in range(layers)]
    return {"layer_types": ["sliding_attention" if each else "full_attention" for each in has_window]}


def phi3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    own: dict[str, Any] = {"sliding_window": window_of(fields)}
    factor = fields.optional_number("rope.scaling.attn_factor", 1e-6, 1e6)
    if SHORT_FACTORS in file or LONG_FACTORS in file:
        original = fields.integer("rope.scaling.original_context_length", 1, MAX)
        own["rope_parameters"] = _of_long_contexts(fields, file, config, original) | {"attention_factor": factor or 1.0}
    return own


def minicpm(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """MiniCPM, which says what blocks are multiplied by, of all of them together, and logits, by a width."""
    layers = config["num_hidden_layers"]
    scales = {key: fields.number(key, 1e-9, 1e9) for key in ("embedding_scale", "residual_scale", "logit_scale")}
    own: dict[str, Any] = {
        "scale_emb": scales["embedding_scale"],
        "scale_depth": scales["residual_scale"] * layers**0.5,
        "dim_model_base": config["hidden_size"] / scales["logit_scale"],
    }
    return own | long_contexts(fields, file, config)


def long_contexts(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Factors of a rotation, where a file has them; its context is that of pretraining where it says no other."""
    if SHORT_FACTORS not in file and LONG_FACTORS not in file:
        return {}
    key, context = "rope.scaling.original_context_length", config["max_position_embeddings"]
    return {"rope_parameters": _of_long_contexts(fields, file, config, fields.integer(key, 1, MAX, default=context))}


def _of_long_contexts(fields: Fields, file: Stored, config: Mapping[str, Any], original: int) -> dict[str, Any]:
    """A rotation by one of two tensors. Args: original: positions of short contexts."""
    kind = config["rope_parameters"].get("rope_type")
    if kind is not None:
        fields.unsupported("rope.scaling.type", kind, f"the file has {SHORT_FACTORS} too")
    return {
        "rope_type": "longrope",
        "rope_theta": config["rope_parameters"]["rope_theta"],
        "attention_factor": 1.0,
        "original_max_position_embeddings": original,
        "short_factor": _factors(file, SHORT_FACTORS),
        "long_factor": _factors(file, LONG_FACTORS),
    }


def _factors(file: Stored, name: str) -> list[float]:
    if name not in file:
        raise ModelError(f"{file.path}: tensor {name} is missing")
    factors = file.tensor(name).to_float32()
    if factors.ndim != 1 or not (np.isfinite(factors) & (factors > 0)).all():
        raise ModelError(f"{file.path}: tensor {name} must hold positive numbers")
    return [float(factor) for factor in factors]


def gemma2(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    fields.raw("attention.sliding_window_pattern")  # of which there is but one, and of the base, too
    base = config["rope_parameters"]["rope_theta"]
    if fields.number("rope.freq_base_swa", 1.0, 1e15, default=base) != base:
        fields.unsupported("rope.freq_base_swa", fields.raw("rope.freq_base_swa"), f"supported: {base}")
    cap = optional_scale(fields, "attn_logit_softcapping")
    return _gemma("gemma2", 2, fields, config) | {"attn_logit_softcapping": cap}


def gemma3(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    pattern = fields.integer("attention.sliding_window_pattern", 1, MAX, default=6)
    theta = fields.number("rope.freq_base_swa", 1.0, 1e15, default=_LOCAL_THETA)
    # of layers without a window, as before there was a table for each kind of layer
    rope = {"rope_parameters": None, "rope_scaling": config["rope_parameters"]}
    return _gemma("gemma3", pattern, fields, config) | {"rope_local_base_freq": theta} | rope


def gemma_embedding(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """EmbeddingGemma, whose tokens see half a window on either side; its linears behind pooling are in some files."""
    for which in _LINEARS:
        for end in ("in", "out"):  # which the tensors show
            fields.raw(f"{which}_feat_{end}")
    return gemma3(fields, file, config) | {
        "architectures": ["Gemma3TextModel"],
        "use_bidirectional_attention": True,
        GGUF_LINEARS: [which for which in _LINEARS if f"{which}.weight" in file],
    }


def _gemma(name: str, period: int, fields: Fields, config: Mapping[str, Any]) -> dict[str, Any]:
    """Args: period: layers with a window are all but each so many-th."""
    is_largest = config["num_hidden_layers"] == _LARGEST[name]
    return {
        "sliding_window": window_of(fields),
        "sliding_window_pattern": period,
        "query_pre_attn_scalar": (
            config["hidden_size"] // config["num_attention_heads"] if is_largest else config["head_dim"]
        ),
        "final_logit_softcapping": optional_scale(fields, "final_logit_softcapping"),
    }
