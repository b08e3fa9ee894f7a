"""Settings that only some architectures have in a GGUF file, as the keys that their config.json has.

Called by config.py. What llama.cpp knows of an architecture and writes into no file is written down here. Does not
know what models compute.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from albireo.errors import ModelError
from albireo.json_file import Fields
from albireo.models.gguf.tensors import LONG_FACTORS, SHORT_FACTORS, GgufFile

_MAX = 2**31 - 1
#: Layers of the models of 27 billion weights, whose scores are multiplied by the root of another width.
_LARGEST = {"gemma2": 46, "gemma3": 62}
#: Layers with a window are all but each so many-th.
_PERIODS = {"gemma2": 2, "gemma3": 6}
_LOCAL_THETA = 10000.0


def own_settings(name: str, fields: Fields, file: GgufFile, config: dict[str, Any]) -> dict[str, Any]:
    """Keys to add to a config. Args: name: of the architecture; config: what all have."""
    if name == "phi3":
        return _phi3(fields, file)
    if name in ("gemma2", "gemma3"):
        return _gemma(name, fields, config)
    if name == "granite":
        return {
            "embedding_multiplier": _number(fields, "embedding_scale"),
            "residual_multiplier": _number(fields, "residual_scale"),
            "attention_multiplier": _number(fields, "attention.scale") or config["head_dim"] ** -0.5,
            "logits_scaling": _number(fields, "logit_scale"),
        }
    if name == "gpt-oss":
        rope = config["rope_parameters"]
        own = {"truncate": False} if rope.get("rope_type") == "yarn" else {}
        return {"attention_bias": True, "sliding_window": _window(fields), "rope_parameters": rope | own}
    if name == "smollm3":
        return {"no_rope_layer_interval": 4, "use_sliding_window": False}
    return {"use_sliding_window": False} if name.startswith("qwen2") else {}


def _number(fields: Fields, key: str) -> float | None:
    """None where it is 0, which stands for none."""
    return fields.optional_number(key, 0.0, 1e9) or None


def _window(fields: Fields) -> int | None:
    return fields.optional_integer("attention.sliding_window", 0, _MAX) or None


def _phi3(fields: Fields, file: GgufFile) -> dict[str, Any]:
    config: dict[str, Any] = {"sliding_window": _window(fields)}
    factor = fields.optional_number("rope.scaling.attn_factor", 1e-6, 1e6)
    if SHORT_FACTORS in file or LONG_FACTORS in file:
        config["rope_parameters"] = {
            "rope_type": "longrope",
            "rope_theta": fields.number("rope.freq_base", 1.0, 1e15, default=10000.0),
            "attention_factor": factor or 1.0,
            "original_max_position_embeddings": fields.integer("rope.scaling.original_context_length", 1, _MAX),
            "short_factor": _factors(file, SHORT_FACTORS),
            "long_factor": _factors(file, LONG_FACTORS),
        }
    return config


def _factors(file: GgufFile, name: str) -> list[float]:
    if name not in file:
        raise ModelError(f"{file.path}: tensor {name} is missing")
    factors = file.tensor(name).to_float32()
    if factors.ndim != 1 or not (np.isfinite(factors) & (factors > 0)).all():
        raise ModelError(f"{file.path}: tensor {name} must hold positive numbers")
    return [float(factor) for factor in factors]


def _gemma(name: str, fields: Fields, config: dict[str, Any]) -> dict[str, Any]:
    is_largest = config["num_hidden_layers"] == _LARGEST[name]
    own = {
        "sliding_window": _window(fields),
        "sliding_window_pattern": _PERIODS[name],
        "query_pre_attn_scalar": (
            config["hidden_size"] // config["num_attention_heads"] if is_largest else config["head_dim"]
        ),
        "final_logit_softcapping": _number(fields, "final_logit_softcapping"),
    }
    pattern = fields.optional_integer("attention.sliding_window_pattern", 1, _MAX)
    local_theta = fields.number("rope.freq_base_swa", 1.0, 1e15, default=_LOCAL_THETA)
    if name == "gemma2":
        return own | {"attn_logit_softcapping": _number(fields, "attn_logit_softcapping")}
    return (
        own | {"rope_local_base_freq": local_theta} | ({} if pattern is None else {"sliding_window_pattern": pattern})
    )
