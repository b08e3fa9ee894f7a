"""Orion 14B: llama with LayerNorms, which have a bias.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["OrionForCausalLM"],
    "model_type": "orion",
    "vocab_size": 131,
    "intermediate_size": 76,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", False)
    return BlockSettings(is_layer_norm=True, qkv_bias=bias, o_bias=bias)


CONFIG = ConfigRules(
    blocks=_blocks,
    defaults={"max_position_embeddings": 2048},
    class_names=("OrionForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    names = Names("model.layers", "self_attn", "o_proj", "mlp", None, "down_proj")
    return decoder(config, max_model_len, names, Ends())
