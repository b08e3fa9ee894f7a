"""Granite 3: Llama with four multipliers: on embeddings, on what blocks add, on scores, and below logits."""

from __future__ import annotations

from albireo.models.config import ConfigRules
from albireo.models.decoders import llama
from albireo.models.settings.tiny import TINY_LLAMA

#: No multiplier is a power of two, and none is what it would be by default.
TINY = TINY_LLAMA | {
    "architectures": ["GraniteForCausalLM"],
    "model_type": "granite",
    "vocab_size": 103,
    "intermediate_size": 76,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "embedding_multiplier": 5.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.4,
    "logits_scaling": 3.0,
    "bos_token_id": 1,
}

MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias", *MULTIPLIERS}),
    defaults={"attention_multiplier": 1.0},
)
build = llama.build
