"""config.json of Step 3.5 and 3.7 as their authors publish it, in the words that transformers has for it: lists with an
entry of each layer, those behind the last included, which guess further tokens.

Called by the architecture's file. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.settings.layer_kinds import MAX_LAYERS

_MAX_HEAD_DIM = 2**12
#: Lists that have an entry of each layer.
_LISTS = ("layer_types", "mlp_layer_types", "swiglu_limits", "swiglu_limits_shared")
_FULL, _SLIDING, _PART = "full_attention", "sliding_attention", "partial_rotary_factor"
#: Dense layers that go before all others where nothing is said.
_DENSE = 3


def as_transformers_has_it(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Raises: ModelError for a list that is none, or of another length; UnsupportedModel for layers that rotate, or
    have heads, otherwise than all of their kind."""
    fields, found = Fields(data, where), dict(data)
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS, default=45)
    guessing = fields.integer("num_nextn_predict_layers", 0, MAX_LAYERS, default=0)
    for key in _LISTS:
        if isinstance(data.get(key), list) and len(data[key]) == layers + guessing:
            found[key] = data[key][:layers]
    kinds = found.get("layer_types") or [_FULL] * layers
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        fields.fail("layer_types", kinds, "must be a list of strings")
    if "mlp_layer_types" not in found or found["mlp_layer_types"] is None:
        found["mlp_layer_types"] = _with_experts(fields, found.pop("moe_layers_enum", None), layers)
    other = fields.table("attention_other_setting")
    if other is not None:
        key, of_windows = "num_sliding_attention_heads", _heads(fields, found, other)
        if found.get(key) not in (None, of_windows[key]):
            fields.fail(key, found[key], "contradicts attention_other_setting; keep one")
        found |= of_windows
        del found["attention_other_setting"]
    if data.get("per_layer_config") is not None:  # the same, layer by layer
        heads = found.get("num_sliding_attention_heads", found.get("num_attention_heads"))
        if found.pop("per_layer_config") != {
            str(i): {"num_attention_heads": heads} for i, kind in enumerate(kinds) if kind == _SLIDING
        }:
            what = "of layers with a window how many heads they have, as num_sliding_attention_heads says"
            fields.unsupported("per_layer_config", data["per_layer_config"], what)
    if found.get("query_pre_attn_scalar") is None:  # as transformers writes it
        found["query_pre_attn_scalar"] = fields.integer("head_dim", 1, _MAX_HEAD_DIM, default=128)
    said = found.get("rope_parameters")
    if not (isinstance(said, Mapping) and any(isinstance(said.get(kind), Mapping) for kind in (_FULL, _SLIDING))):
        found |= _rotations(fields, kinds)
        for key in ("rope_theta", "partial_rotary_factors", "rope_scaling", "yarn_only_types"):
            found.pop(key, None)
    return found


def _with_experts(fields: Fields, said: Any, layers: int) -> list[str]:
    """A list of numbers, or a text of them with commas between."""
    numbers = list(range(min(_DENSE, layers), layers)) if said is None else said
    if isinstance(numbers, str):
        numbers = [int(each) if each.strip().isdecimal() else None for each in numbers.split(",") if each.strip()]
    is_list = isinstance(numbers, list) and all(type(each) is int and each >= 0 for each in numbers)
    if not is_list:
        fields.fail("moe_layers_enum", said, 'must be numbers of layers, a list or such as "3,4,5"')
    return ["sparse" if layer in numbers else "dense" for layer in range(layers)]


def _heads(fields: Fields, found: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Of layers with a window. Raises: UnsupportedModel where they have others than query heads of their own."""
    rest = {"attention_type": _SLIDING}
    for key in ("num_attention_groups", "head_dim", "true_head_dim"):
        same = found.get("head_dim") if key == "true_head_dim" else found.get(key)
        rest |= {key: same} if same is not None else {}
    for key, value in rest.items():
        if key in other and other[key] != value:
            fields.unsupported("attention_other_setting", dict(other), f"{key}={other[key]!r} is not {value!r}")
    unknown = sorted(set(other) - {*rest, "num_attention_heads"})
    if unknown:
        fields.unsupported("attention_other_setting", dict(other), f"{', '.join(unknown)} is not known")
    return {"num_sliding_attention_heads": other.get("num_attention_heads", found.get("num_attention_heads"))}


def _rotations(fields: Fields, kinds: list[str]) -> dict[str, Any]:
    """A rotation of each kind of layers; what stretches one is meant for those that see all.

    Raises: ModelError, UnsupportedModel where layers of a kind differ.
    """
    scaling, only = _scaling(fields), fields.raw("yarn_only_types")
    if scaling and only not in (None, [], [_FULL]):
        fields.unsupported("yarn_only_types", only, f"supported: {[_FULL]}")
    tables: dict[str, dict[str, Any]] = {}
    for key, name, default in (("rope_theta", "rope_theta", 10000.0), ("partial_rotary_factors", _PART, 1.0)):
        said = fields.raw(key)
        numbers = said if isinstance(said, list) else [default if said is None else said] * len(kinds)
        if len(numbers) < len(kinds):
            fields.fail(key, said, f"must have an entry of each of {len(kinds)} layers")
        for kind in dict.fromkeys(kinds):
            of_kind = [number for number, each in zip(numbers, kinds, strict=False) if each == kind]
            if any(number != of_kind[0] for number in of_kind):
                fields.unsupported(key, said, f"the same in all layers of {kind}")
            tables.setdefault(kind, {"rope_type": "default"})[name] = of_kind[0]
    if _FULL in tables:
        tables[_FULL] |= scaling
    return {"rope_parameters": tables}


def _scaling(fields: Fields) -> dict[str, Any]:
    """What stretches a rotation: of rope_scaling, or of rope_parameters, which newer programs write the same table as.

    Raises: ModelError where they differ; UnsupportedModel where the latter says what lists of layers say.
    """
    old, new = fields.table("rope_scaling"), fields.table("rope_parameters")
    if not new:
        return old or {}
    if twice := sorted({"rope_theta", _PART} & set(new)):
        what = f"{', '.join(twice)} is said of each layer, in rope_theta and partial_rotary_factors"
        fields.unsupported("rope_parameters", new, what)
    if old and old != new:
        fields.fail("rope_parameters", new, f"contradicts rope_scaling={old}; keep one")
    return new
