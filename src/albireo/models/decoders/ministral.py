"""Ministral 8B: Mistral with a window in the layers that layer_types names."""

from __future__ import annotations

from albireo.models.config import ConfigRules
from albireo.models.decoders import mistral
from albireo.models.settings.layer_kinds import MAX_LAYERS

TINY = mistral.TINY | {
    "architectures": ["MinistralForCausalLM"],
    "model_type": "ministral",
    "vocab_size": 127,
    "hidden_size": 48,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 21,
    "layer_types": ["full_attention", "sliding_attention"],
}

#: Where nothing is said, every layer has a window: no model has so many layers that one is the last of a period.
CONFIG = ConfigRules(
    windows="periodic", period=MAX_LAYERS + 1, defaults={"num_key_value_heads": 8, "max_position_embeddings": 131072}
)
build = mistral.build
