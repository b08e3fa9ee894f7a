"""Mistral 7B: Llama with a sliding window in every layer, or none, and no biases."""

from __future__ import annotations

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: One KV head, a window shorter than any test prompt, heads narrower than hidden / heads.
TINY = TINY_LLAMA | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 97,
    "hidden_size": 40,
    "intermediate_size": 72,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "sliding_window": 7,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(defaults={"num_key_value_heads": 8}, windows="every_layer", activation="gated")
build = decoder
