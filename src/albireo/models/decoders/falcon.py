"""Falcon 7B, 11B, 40B, 180B: attention and FFN side by side; rows of q, k and v by group of heads in one tensor. And
Falcon RW, whose scores fall with distance in place of a rotation.
"""

from __future__ import annotations

from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.alibi import slopes_of
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.config_keys import MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings

#: Of 7B: all queries share one key and one value, one norm for both blocks.
TINY = {
    "architectures": ["FalconForCausalLM"],
    "model_type": "falcon",
    "vocab_size": 157,
    "hidden_size": 48,
    "ffn_hidden_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "activation": "gelu",
    "layer_norm_epsilon": 1e-5,
    "rope_theta": 10000.0,
    "alibi": False,
    "bias": False,
    "multi_query": True,
    "new_decoder_architecture": False,
    "parallel_attn": True,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for as many norms as the architecture does not have."""
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    falls = fields.flag("alibi", False)
    is_new = fields.flag("new_decoder_architecture", False)
    shares, is_parallel = fields.flag("multi_query", True), fields.flag("parallel_attn", True)
    given = fields.integer("num_kv_heads", 1, MAX_HEADS, default=heads)
    norms = fields.integer("num_ln_in_parallel_attn", 1, 2, default=2 if is_new else 1)
    has_others = norms == 2 and not is_new
    if has_others or (is_new and not is_parallel):
        name = "num_ln_in_parallel_attn" if has_others else "parallel_attn"
        fields.unsupported(name, fields.raw(name), f"new_decoder_architecture is {str(is_new).lower()}")
    bias = fields.flag("bias", False)
    # what is added is divided by the root of a head's channels, as scores are
    root = (fields.integer("hidden_size", 1, MAX_WIDTH) / heads) ** 0.5
    return BlockSettings(
        is_layer_norm=True,
        has_rotation=not falls,
        slopes=tuple(slope / root for slope in slopes_of(heads)) if falls else (),
        qkv_bias=bias,
        o_bias=bias,
        ffn_bias=bias,
        is_parallel=is_parallel,
        has_ffn_norm=norms == 2 or not is_parallel,
        joined="by_group",
        num_kv_heads=given if is_new else 1 if shares else heads,
    )


CONFIG = ConfigRules(
    names={"intermediate_size": "ffn_hidden_size", "rms_norm_eps": "layer_norm_epsilon", "hidden_act": "activation"},
    blocks=_blocks,
    ffn_factor=4,
    activation="plain",
    defaults={
        "layer_norm_epsilon": 1e-5,
        "activation": "gelu",
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    # beside ffn_hidden_size, which is read
    ignorable=keys("ff_factor"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    has_two = config.blocks.is_parallel and config.blocks.has_ffn_norm
    norms = ("ln_attn", "ln_mlp") if has_two else ("input_layernorm", "post_attention_layernorm")
    names = Names(
        "transformer.h",
        "self_attention",
        "dense",
        "mlp",
        "dense_h_to_4h",
        "dense_4h_to_h",
        *norms,
        joined="query_key_value",
    )
    ends = Ends("transformer.word_embeddings.weight", "transformer.ln_f")
    return decoder(config, max_model_len, names, ends)
