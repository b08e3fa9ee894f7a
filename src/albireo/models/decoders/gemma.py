"""Gemma (1 and 1.1): embeddings times the root of the width, norms by their weight plus 1, gelu."""

from __future__ import annotations

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.multipliers import GEMMA
from albireo.models.settings.tiny import TINY_LLAMA

#: One KV head, heads wider together than the model; the activation under its old name.
TINY = TINY_LLAMA | {
    "architectures": ["GemmaForCausalLM"],
    "model_type": "gemma",
    "vocab_size": 127,
    "hidden_size": 40,
    "intermediate_size": 72,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    head_dim=256,
    defaults={"num_key_value_heads": 16, "tie_word_embeddings": True},
    activation="gelu_tanh",
    multipliers=GEMMA,
)
build = decoder
