"""Granite 3: Llama with four multipliers: on embeddings, on what blocks add, on scores, and below logits."""

from __future__ import annotations

from albireo.models.config import ConfigRules
from albireo.models.decoders import llama

#: No multiplier is a power of two, and none is what it would be by default.
TINY = {
    "architectures": ["GraniteForCausalLM"],
    "model_type": "granite",
    "vocab_size": 103,
    "hidden_size": 48,
    "intermediate_size": 76,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": True,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "embedding_multiplier": 5.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.4,
    "logits_scaling": 3.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

MULTIPLIERS = ("embedding_multiplier", "residual_multiplier", "attention_multiplier", "logits_scaling")
CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias", *MULTIPLIERS}),
    defaults={"attention_multiplier": 1.0},
)
build = llama.build
