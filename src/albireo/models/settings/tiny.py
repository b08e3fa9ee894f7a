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
#: Of those whose keys and values are latents, and whose experts are DeepSeek's.
TINY_LATENT = TINY_LLAMA | {
    "hidden_size": 40,
    "intermediate_size": 60,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "q_lora_rank": 20,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 12,
    "qk_rope_head_dim": 8,
    "v_head_dim": 10,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "norm_topk_prob": True,
    "bos_token_id": 1,
}
