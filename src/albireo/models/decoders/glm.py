"""GLM-4 9B as it was first: Llama with biases of q, k and v, and rotation of half of each head, pairs side by side."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Half of each head rotated.
TINY = TINY_LLAMA | {
    "architectures": ["GlmForCausalLM"],
    "model_type": "glm",
    "vocab_size": 113,
    "intermediate_size": 76,
    "head_dim": 16,
    "rms_norm_eps": 1.5625e-07,
    "attention_bias": True,
    "partial_rotary_factor": 0.5,
    "rope_theta": 10000.0,
    "eos_token_id": [2, 3],
    "pad_token_id": 2,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    head_dim=128,
    defaults={
        "num_key_value_heads": 2,
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1.5625e-07,
    },
    has_pairs_side_by_side=True,
)
build = partial(decoder, ffn=partial(mlp_block, joined="gate_up_proj"), o_bias=False)
