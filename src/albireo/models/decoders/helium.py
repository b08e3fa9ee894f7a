"""Helium 1: llama whose rotary pairs are neighbours."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["HeliumForCausalLM"],
    "model_type": "helium",
    "vocab_size": 127,
    "intermediate_size": 72,
    "head_dim": 12,
    "rms_norm_eps": 1e-8,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 100000.0,
    "bos_token_id": 1,
    "pad_token_id": 3,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    head_dim=128,
    has_pairs_side_by_side=True,
    defaults={"num_key_value_heads": 20, "rms_norm_eps": 1e-8, "rope_theta": 100000.0, "max_position_embeddings": 4096},
)
build = partial(decoder, o_bias=False)
