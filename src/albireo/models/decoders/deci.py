"""DeciLM 7B: llama, whose layers differ in KV heads."""

from __future__ import annotations

from albireo.json_file import Fields
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS, MAX_WIDTH
from albireo.models.decoders import nemotron_nas
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_parts import LayerPart
from albireo.models.settings.tiny import TINY_LLAMA

TINY = {
    **{key: value for key, value in TINY_LLAMA.items() if key != "num_key_value_heads"},
    "architectures": ["DeciLMForCausalLM"],
    "model_type": "deci",
    "vocab_size": 127,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_key_value_heads_per_layer": [4, 2, 1],
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "dynamic", "factor": 2.0},
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a list that does not say every layer."""
    layers, heads = fields.integer("num_hidden_layers", 1, 2**12), fields.integer("num_attention_heads", 1, MAX_HEADS)
    width, given = fields.integer("intermediate_size", 1, MAX_WIDTH), fields.raw("num_key_value_heads_per_layer")
    is_list = isinstance(given, list) and len(given) == layers
    if not is_list or not all(type(each) is int and each > 0 and heads % each == 0 for each in given):
        rule = f"must be, for each of {layers} layers, a divisor of num_attention_heads={heads}"
        fields.fail("num_key_value_heads_per_layer", given, rule)
    return BlockSettings(num_kv_heads=given[0], ffn_width=width, parts=tuple(LayerPart(kv, width) for kv in given))


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=_blocks,
    built_in={"naive_attention_prefill": False, "naive_attention_decode_batched": True},
    ignorable=frozenset({"naive_attention_decode_single", "num_key_value_heads"}),
    class_names=("DeciLMForCausalLM",),
)
build = nemotron_nas.build
