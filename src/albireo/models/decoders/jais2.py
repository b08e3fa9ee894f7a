"""Jais 2: LayerNorm, biases, an FFN of two matrices with relu²."""

from __future__ import annotations

from albireo.json_file import Fields
from albireo.models.config import ConfigRules
from albireo.models.decoders import nemotron
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["Jais2ForCausalLM"],
    "model_type": "jais2",
    "vocab_size": 131,
    "intermediate_size": 92,
    "hidden_act": "relu2",
    "layer_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "attention_bias": True,
    "mlp_bias": True,
    "bos_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", True)
    return BlockSettings(is_layer_norm=True, qkv_bias=bias, o_bias=bias, ffn_bias=fields.flag("mlp_bias", True))


CONFIG = ConfigRules(
    names={"rms_norm_eps": "layer_norm_eps"},
    blocks=_blocks,
    activation="relu2",
    defaults={"layer_norm_eps": 1e-5, "max_position_embeddings": 8192},
)
build = nemotron.build
