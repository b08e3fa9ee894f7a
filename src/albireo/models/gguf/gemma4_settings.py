"""Settings of a GGUF file of Gemma 4, as the keys that its config.json has.

Named by the tables. Layers without a window have heads of their own there, whose size is said under
the keys that others have for all, and a rotation told by a tensor. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.errors import UnsupportedModel
from albireo.json_file import Fields
from albireo.models.gguf.own_settings import layer_types
from albireo.models.gguf.stored import MAX, ROPE_FACTORS, Stored, by_layer, optional_scale, window_of

_SLIDING = "sliding_attention"
#: What converters divide a frequency by that is to be 0.
_STILL = 1e20


def gemma4(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    layers = config["num_hidden_layers"]
    kinds = layer_types(fields, config, 6)["layer_types"]
    heads = by_layer(fields, "attention.head_count_kv", layers)
    of_kind = {kind: {n for n, each in zip(heads, kinds, strict=True) if each == kind} for kind in set(kinds)}
    if any(len(counts) > 1 for counts in of_kind.values()):
        fields.unsupported("attention.head_count_kv", heads, "layers with a window, and those without, must be alike")
    full = [i for i, kind in enumerate(kinds) if kind != _SLIDING]
    head_dim = _head_dim(fields, "_swa")
    alike: dict[str, Any] = {"head_dim": config["head_dim"]}
    alike |= {"num_key_value_heads": heads[full[0]]} if full else {}
    sharing = fields.integer("attention.shared_kv_layers", 0, layers, default=0)
    return {
        **_widths(fields, layers, sharing),
        "layer_types": kinds,
        "num_key_value_heads": next((n for n, kind in zip(heads, kinds, strict=True) if kind == _SLIDING), heads[0]),
        "head_dim": head_dim,
        "per_layer_config": {str(layer): alike for layer in full},
        "attention_k_eq_v": any(f"model.layers.{i}.self_attn.v_proj.weight" not in file for i in full[:1]),
        "num_kv_shared_layers": sharing,
        "hidden_size_per_layer_input": fields.integer("embedding_length_per_layer_input", 0, MAX, default=0),
        "vocab_size_per_layer_input": config["vocab_size"],
        "sliding_window": window_of(fields),
        "final_logit_softcapping": optional_scale(fields, "final_logit_softcapping"),
        "rope_parameters": _rope(fields, file, config),
        "partial_rotary_factor": None,
        **_experts(fields),
    }


def _head_dim(fields: Fields, kind: str) -> int:
    """Of layers with a window. Raises: UnsupportedModel where a part of a head turns, or values have another size."""
    head_dim = fields.integer(f"attention.key_length{kind}", 1, MAX)
    for key in (f"attention.value_length{kind}", f"rope.dimension_count{kind}"):
        if fields.integer(key, 1, MAX, default=head_dim) != head_dim:
            fields.unsupported(key, fields.raw(key), f"supported: {head_dim}")
    return head_dim


def _widths(fields: Fields, layers: int, sharing: int) -> dict[str, Any]:
    """FFNs may be twice as wide in layers that read another's cache."""
    key = "feed_forward_length"
    widths = by_layer(fields, key, layers)
    is_double = bool(sharing) and widths[-1] == 2 * widths[0]
    wanted = [widths[0] * (2 if is_double and i >= layers - sharing else 1) for i in range(layers)]
    if widths != wanted:
        fields.unsupported(key, widths, f"supported: {wanted}")
    return {"intermediate_size": widths[0], "use_double_wide_mlp": is_double}


def _rope(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    part = 1.0
    if config["partial_rotary_factor"] != 1.0:
        fields.unsupported(
            "rope.dimension_count", fields.raw("rope.dimension_count"), "supported: attention.key_length"
        )
    if ROPE_FACTORS in file:
        factors = file.tensor(ROPE_FACTORS).to_float32()
        turning = int((factors == 1).sum())
        if not (factors[:turning] == 1).all() or not (factors[turning:] > _STILL).all():
            raise UnsupportedModel(
                f"{file.path}: tensor {ROPE_FACTORS} must be 1 for the first pairs, and 1e30 for others"
            )
        part = turning / len(factors)
    theta = config["rope_parameters"]["rope_theta"]
    local = fields.number("rope.freq_base_swa", 1.0, 1e15, default=10000.0)
    return {
        "full_attention": {"rope_type": "proportional", "partial_rotary_factor": part, "rope_theta": theta},
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def _experts(fields: Fields) -> dict[str, Any]:
    if not fields.raw("expert_count"):
        return {}
    return {
        "enable_moe_block": True,
        "num_experts": fields.integer("expert_count", 1, MAX),
        "top_k_experts": fields.integer("expert_used_count", 1, MAX),
        "moe_intermediate_size": fields.integer("expert_feed_forward_length", 1, MAX),
    }
