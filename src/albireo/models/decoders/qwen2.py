"""Qwen 2 and 2.5: biases on q, k and v, never on o; a sliding window in the upper layers when asked for."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Tied, a window in the second of three layers and above, yarn, no head_dim key.
TINY = TINY_LLAMA | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "vocab_size": 113,
    "hidden_size": 60,
    "intermediate_size": 100,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_theta": 1000000.0,
    "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "use_sliding_window": True,
    "sliding_window": 9,
    "max_window_layers": 1,
    "bos_token_id": 0,
}

CONFIG = ConfigRules(
    keys=frozenset({"dual_chunk_attention_config"}), defaults={"num_key_value_heads": 32}, windows="by_layer"
)
build = partial(decoder, qkv_bias=True, o_bias=False)
