"""InternLM 1, 7B and 20B: llama with biases of queries, keys, values and what comes out.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from albireo.json_file import Fields
from albireo.models.decoders import llama
from albireo.models.settings.rope_settings import DEFAULT_THETA, MAX_THETA, MIN_THETA

_LLAMA = ("attention_bias", "head_dim", "mlp_bias", "num_key_value_heads", "rope_scaling", "rope_theta")
TINY = {
    **{key: value for key, value in llama.TINY.items() if key not in _LLAMA},
    "architectures": ["InternLMForCausalLM"],
    "model_type": "internlm",
    "num_hidden_layers": 2,
    "bias": True,
    "rotary": {"base": 10000, "type": "dynamic"},
}


def _as_others_say(data: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """With the base of the rotation as others have it: what is dynamic of it begins behind the context.

    Raises: ModelError; UnsupportedModel for a rotation of another type.
    """
    table = Fields(data, where).table("rotary")
    if table is None:
        return data
    rotary = Fields(table, f"{where}: rotary")
    kind = rotary.text("type", "origin")
    if kind not in ("origin", "dynamic"):
        rotary.unsupported("type", kind, "supported: origin, dynamic")
    theta = rotary.number("base", MIN_THETA, MAX_THETA, default=DEFAULT_THETA)
    rotary.refuse_unread((), {"scaling_factor": (1.0,)})
    return {**{key: value for key, value in data.items() if key != "rotary"}, "rope_theta": theta}


CONFIG = replace(
    llama.CONFIG,
    keys=frozenset({"attention_bias"}),
    rewritten=_as_others_say,
    older_names={"bias": "attention_bias"},
    defaults={"max_position_embeddings": 2048, "attention_bias": True},
    built_in={},
    ignorable=frozenset(),
    class_names=("InternLMForCausalLM",),
)
build = llama.build
