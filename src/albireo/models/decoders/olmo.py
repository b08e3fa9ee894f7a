"""OLMo 1: llama with a LayerNorm that has neither weight nor bias."""

from __future__ import annotations

from albireo.json_file import Fields
from albireo.models.blocks.plain_layers import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["OlmoForCausalLM"],
    "model_type": "olmo",
    "vocab_size": 127,
    "intermediate_size": 80,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "clip_qkv": None,
    "pad_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", False)
    return BlockSettings(is_layer_norm=True, has_norm_weight=False, has_norm_bias=False, qkv_bias=bias, o_bias=bias)


CONFIG = ConfigRules(
    keys=frozenset({"clip_qkv"}), blocks=_blocks, defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 2048}
)
build = decoder
