"""Arcee AFM 4.5B: llama with an FFN of two matrices, with relu²."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.layers import FFNNames, mlp_block
from albireo.models.config import ConfigRules

TINY = {
    "architectures": ["ArceeForCausalLM"],
    "model_type": "arcee",
    "vocab_size": 127,
    "hidden_size": 48,
    "intermediate_size": 90,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "relu2",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    activation="relu2",
    defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
)
#: Also of models whose FFN has other activations.
UP_AND_DOWN = FFNNames(gate="")
build = partial(decoder, ffn=partial(mlp_block, names=UP_AND_DOWN))
