"""BLOOM: scores that fall with distance; a LayerNorm of embeddings; rows of q, k and v head by head in one tensor."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.alibi import slopes_of
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings

#: As many heads as are no power of two.
TINY = {
    "architectures": ["BloomForCausalLM"],
    "model_type": "bloom",
    "vocab_size": 113,
    "hidden_size": 48,
    "n_layer": 2,
    "n_head": 6,
    "seq_length": 128,
    "layer_norm_epsilon": 1e-5,
    "apply_residual_connection_post_layernorm": False,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 3,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=True,
        o_bias=True,
        ffn_bias=True,
        joined="by_group",
        num_kv_heads=heads,
        has_rotation=False,
        slopes=slopes_of(heads),
    )


CONFIG = ConfigRules(
    names={
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "rms_norm_eps": "layer_norm_epsilon",
        "max_position_embeddings": "seq_length",
    },
    older_names={"n_embed": "hidden_size", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer"},
    deciding=frozenset({"n_embed", "num_attention_heads", "num_hidden_layers"}),
    blocks=_blocks,
    ffn_factor=4,
    has_rope=False,
    activation="tanh_gelu",
    defaults={"layer_norm_epsilon": 1e-5, "seq_length": 2048, "tie_word_embeddings": True},
    # scores are summed and compared in float32 anyway; matrices are whole, whatever they were cut into in training
    ignorable=keys(
        "attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion offset_alibi skip_bias_add",
        "skip_bias_add_qkv slow_but_exact",
    ),
)
build = partial(
    decoder,
    names=Names(
        *("transformer.h", "self_attention", "dense", "mlp", "dense_h_to_4h", "dense_4h_to_h"), joined="query_key_value"
    ),
    ends=Ends("transformer.word_embeddings.weight", "transformer.ln_f"),
    embedding_norm="transformer.word_embeddings_layernorm",
)
