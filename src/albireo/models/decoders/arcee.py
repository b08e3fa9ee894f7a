"""Arcee AFM 4.5B: llama with an FFN of two matrices, with relu²."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import FFNNames, mlp_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["ArceeForCausalLM"],
    "model_type": "arcee",
    "vocab_size": 127,
    "intermediate_size": 90,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "hidden_act": "relu2",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0},
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    activation="relu2",
    defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
)
#: Also of models whose FFN has other activations.
UP_AND_DOWN = FFNNames(gate="")
build = partial(decoder, ffn=partial(mlp_block, names=UP_AND_DOWN))
