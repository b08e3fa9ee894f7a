"""Llama Nemotron Super and Ultra (DeciLM): Llama, of whose layers some have no attention, or no FFN, and which differ
in KV heads and in channels of FFNs.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import attention_block, embedding, head
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_parts import parse_block_configs
from albireo.models.settings.tiny import TINY_LLAMA

#: Two KV heads, then an FFN alone, then four KV heads alone, then one KV head and an FFN whose width is rounded.
TINY = TINY_LLAMA | {
    "architectures": ["DeciLMForCausalLM"],
    "model_type": "nemotron-nas",
    "vocab_size": 127,
    "intermediate_size": None,
    "num_hidden_layers": 4,
    "num_key_value_heads": None,
    "head_dim": 12,
    "block_configs": [
        {"attention": {"n_heads_in_group": 2, "no_op": False}, "ffn": {"intermediate_size": 72, "no_op": False}},
        {"attention": {"n_heads_in_group": None, "no_op": True}, "ffn": {"intermediate_size": 56, "no_op": False}},
        {"attention": {"n_heads_in_group": 1, "no_op": False}, "ffn": {"ffn_mult": None, "no_op": True}},
        {"attention": {"n_heads_in_group": 4, "no_op": False}, "ffn": {"ffn_mult": 1.5, "no_op": False}},
    ],
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError, UnsupportedModel; for a model without attention, too, and for one without FFNs."""
    heads, hidden = (fields.integer(key, 1, most) for key, most in _SIZES.items())
    parts = parse_block_configs(fields, heads, hidden)
    kv_heads, width = (next((n for n in numbers if n), 0) for numbers in zip(*parts, strict=True))
    if not kv_heads or not width:
        fields.unsupported("block_configs", fields.raw("block_configs"), "some layer must have attention, and an FFN")
    return BlockSettings(num_kv_heads=kv_heads, ffn_width=width, parts=parts)


_SIZES = {"num_attention_heads": MAX_HEADS, "hidden_size": MAX_WIDTH}
CONFIG = ConfigRules(
    keys=keys("attention_bias mlp_bias"),
    blocks=_blocks,
    defaults={"rms_norm_eps": 1e-6},
    class_names=("DeciLMForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, rope = GraphBuilder(), config, rope_spec(config, max_model_len)
    bias = c.attention_bias
    x = embedding(b, c)
    for layer, part in enumerate(c.blocks.parts):
        if part.kv_heads:
            cache = c.cached_layers.index(layer)
            x = attention_block(b, c.of_layer(layer), x, layer, rope, qkv_bias=bias, o_bias=bias, cache=cache)
        if part.ffn_width:
            x = mlp_block(b, c, x, layer)
    return head(b, c, x)
