"""OpenELM 270M to 3B: layers that differ in query heads, KV heads and channels of their FFN; norms of each head of q
and k; rows of q, k and v, and of gate and up, in one tensor each.

first_names.py has the names of its tensors.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import attention_block, embedding, head
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_parts import LayerPart

TINY = {
    "architectures": ["OpenELMForCausalLM"],
    "model_type": "openelm",
    "vocab_size": 113,
    "model_dim": 48,
    "head_dim": 12,
    "num_transformer_layers": 3,
    "num_query_heads": [4, 6, 6],
    "num_kv_heads": [2, 2, 3],
    "num_gqa_groups": 2,
    "ffn_multipliers": [0.5, 1.6, 2.25],
    "ffn_dim_divisor": 8,
    "ffn_with_glu": True,
    "activation_fn_name": "swish",
    "normalization_layer_name": "rms_norm",
    "normalize_qk_projections": True,
    "share_input_output_layers": True,
    "max_context_length": 128,
    "rope_freq_constant": 10000,
    "rope_max_length": 256,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a list that does not say every layer."""
    layers, width = fields.integer("num_hidden_layers", 1, 2**12), fields.integer("hidden_size", 1, MAX_WIDTH)
    heads, kv_heads = (_of_layers(fields, key, layers, int, MAX_HEADS) for key in ("num_query_heads", "num_kv_heads"))
    parts = []
    step = fields.integer("ffn_dim_divisor", 1, MAX_WIDTH, default=256)
    factors = _of_layers(fields, "ffn_multipliers", layers, float, 64.0)
    for layer, (of_query, of_key, factor) in enumerate(zip(heads, kv_heads, factors, strict=True)):
        if int(of_query) % int(of_key):
            fields.fail("num_query_heads", of_query, f"of layer {layer} must be a multiple of num_kv_heads={of_key}")
        parts.append(LayerPart(int(of_key), _rounded(factor * width, step)))
    return BlockSettings(
        num_kv_heads=parts[0].kv_heads,
        ffn_width=parts[0].ffn_width,
        parts=tuple(parts),
        layer_heads=tuple(int(each) for each in heads),
        norm_eps=1e-6,
        has_qk_norm=fields.flag("normalize_qk_projections", True),
    )


def _of_layers(fields: Fields, key: str, layers: int, kind: type, most: float) -> list[float]:
    """One number above 0 for each layer."""
    given = fields.raw(key)
    is_list = isinstance(given, list) and len(given) == layers
    if not is_list or not all(type(each) in (int, kind) and 0 < each <= most for each in given):
        fields.fail(key, given, f"must be a list of numbers up to {most:g}, one for each of {layers} layers")
    return [float(each) if kind is float else each for each in given]


def _rounded(width: float, step: int) -> int:
    """To the nearest multiple of step, or the next where that is less than nine tenths."""
    found = max(step, int(width + step / 2) // step * step)
    return found + step if found < 0.9 * width else found


CONFIG = ConfigRules(
    names={
        "hidden_size": "model_dim",
        "num_hidden_layers": "num_transformer_layers",
        "max_position_embeddings": "max_context_length",
        "hidden_act": "activation_fn_name",
    },
    older_names={"share_input_output_layers": "tie_word_embeddings", "rope_freq_constant": "rope_theta"},
    rewritten=lambda data, _: {**data, "num_attention_heads": _first(data.get("num_query_heads"))},
    blocks=_blocks,
    defaults={"max_context_length": 2048, "tie_word_embeddings": True, "head_dim": 128},
    built_in={"ffn_with_glu": True, "normalization_layer_name": "rms_norm"},
    # what lists say again; how many positions a table would have
    ignorable=keys("num_gqa_groups qkv_multipliers rope_max_length"),
    class_names=("OpenELMForCausalLM",),
)


def _first(heads: object) -> object:
    """Of a list, which _of_layers() checks."""
    return heads[0] if isinstance(heads, list) and heads else 1


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, rope, has_norm = GraphBuilder(), rope_spec(config, max_model_len), config.blocks.has_qk_norm
    x = embedding(b, config)
    for layer, heads in enumerate(config.blocks.layer_heads):
        c = replace(config.of_layer(layer), num_heads=heads)
        x = attention_block(b, c, x, layer, rope, qkv_bias=False, o_bias=False, qk_norm=has_norm, joined="qkv_proj")
        x = mlp_block(b, config, x, layer, joined="gate_up_proj")
    return head(b, config, x)
