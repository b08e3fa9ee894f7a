"""Phi-3, Phi-3.5 mini and Phi-4 (mini): rows of q, k, v and of gate and up in one tensor each, longrope, rotation of a
part of each head.
"""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Two thirds of each head rotated, frequencies beyond the context of pretraining, a window.
TINY = TINY_LLAMA | {
    "architectures": ["Phi3ForCausalLM"],
    "model_type": "phi3",
    "vocab_size": 109,
    "intermediate_size": 88,
    "original_max_position_embeddings": 4,
    "rms_norm_eps": 1e-5,
    "partial_rotary_factor": 0.67,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "longrope",
        "attention_factor": 1.25,
        "short_factor": [1.0, 1.1, 1.3, 1.5],
        "long_factor": [1.0, 2.0, 3.0, 8.0],
    },
    "sliding_window": 33,
    "bos_token_id": 1,
    # transformers' own is behind this vocabulary
    "pad_token_id": 0,
}

CONFIG = ConfigRules(
    keys=frozenset({"partial_rotary_factor"}),
    windows="every_layer",
    defaults={"sliding_window": None, "rms_norm_eps": 1e-5},
    # in Phi-4-mini's file; transformers reads neither
    built_in={"full_attn_mod": 1, "interpolate_factor": 1},
)
build = partial(decoder, ffn=partial(mlp_block, joined="gate_up_proj"), joined="qkv_proj")
