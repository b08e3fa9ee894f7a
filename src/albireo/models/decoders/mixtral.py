"""Mixtral 8x7B, 8x22B: Llama's attention; of each layer's experts a token has two, their weights renormalized."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Five experts of 43 channels, two a token, a window.
TINY = TINY_LLAMA | {
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "vocab_size": 137,
    "intermediate_size": 43,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "sliding_window": 24,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.02,
    "router_jitter_noise": 0.0,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6},
    windows="every_layer",
    default_window=None,
    experts="mixtral",
)
NAMES = Names("block_sparse_moe", "w1", "w3", "w2")
build = partial(decoder, ffn=partial(moe_block, names=NAMES))
