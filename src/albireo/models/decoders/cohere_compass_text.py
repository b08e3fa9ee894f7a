"""Cohere Compass (North Micro Vision), text alone: the blocks of Command, with a rotation for each kind of layers, or
none; pairs of channels are halves of a head.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from albireo.json_file import Fields
from albireo.models.config import ConfigRules
from albireo.models.decoders import cohere
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer has no window, and rotates by a base of its own.
TINY = TINY_LLAMA | {
    "architectures": ["CohereCompassForCausalLM"],
    "model_type": "cohere_compass_text",
    "vocab_size": 149,
    "intermediate_size": 76,
    "num_hidden_layers": 3,
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.4,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "sliding_window": 15,
    "rope_parameters": {
        "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500000.0, "mrope_section": [2, 2, 2]},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 2, 2]},
    },
    "attention_bias": False,
    "tie_word_embeddings": True,
    "bos_token_id": 5,
    "pad_token_id": 0,
}
#: Which pairs follow which of three positions, which are equal in a text.
_OF_PLACES = ("mrope_section", "mrope_interleaved")


def _as_others_say(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Which layers rotate, as a list. Raises: ModelError where a kind of layers has neither rotation nor null."""
    fields = Fields(data, where)
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS, default=40)
    kinds = fields.texts("layer_types") or ("full_attention",) * layers
    said = fields.table("rope_parameters") or {}
    if missing := sorted(set(kinds) - set(said)):
        fields.fail("rope_parameters", said or None, f"must have a rotation, or null, of {', '.join(missing)}")
    tables = {kind: Fields(said, f"{where}: rope_parameters").table(kind) for kind in dict.fromkeys(kinds)}
    plain = {
        kind: {key: value for key, value in table.items() if key not in _OF_PLACES}
        for kind, table in tables.items()
        if table is not None
    }
    still = [int(tables[kind] is not None) for kind in kinds]
    return {**data, "rope_parameters": plain or None, "no_rope_layers": still}


CONFIG: ConfigRules = replace(
    cohere.CONFIG,
    rewritten=_as_others_say,
    has_pairs_side_by_side=False,
    has_layers_without_rope=True,
    has_local_rope=True,
    windows="said",
    older_names={},
    deciding=frozenset(),
    defaults={
        **{key: value for key, value in cohere.CONFIG.defaults.items() if key != "rope_theta"},
        "logit_scale": 1.0,
        "bos_token_id": 5,
        "eos_token_id": 255001,
    },
    class_names=("CohereCompassForCausalLM",),
)
build = cohere.build
