"""What tiny models of most architectures say alike in their config.json, for tests.

An architecture's TINY says beside it what it is about. Does not know what keys mean.
"""

from __future__ import annotations

from typing import Any

TINY_LLAMA: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
