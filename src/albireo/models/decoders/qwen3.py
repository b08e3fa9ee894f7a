"""Qwen 3 (dense): each head of q and k is RMS-normalized before RoPE; no biases unless asked for."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Tied, heads twice as wide together as the model, head_dim 16.
TINY = TINY_LLAMA | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151,
    "hidden_size": 32,
    "intermediate_size": 52,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 2,
    "bos_token_id": 0,
}

#: transformers' head_dim when the file names none; it is not hidden / heads.
CONFIG = ConfigRules(
    defaults={"num_key_value_heads": 32},
    keys=frozenset({"dual_chunk_attention_config", "attention_bias"}),
    windows="by_layer",
    head_dim=128,
)
build = partial(decoder, qk_norm=True)
