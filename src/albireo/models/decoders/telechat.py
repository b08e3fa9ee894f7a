"""TeleChat 2, 3B to 115B: llama, whose keys and values lie in one tensor, head by head, under other names.

Queries that grow with the logarithm of their position do so behind the context, and its rotation is stretched there.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["TeleChat2ForCausalLM"],
    "model_type": "telechat",
    "vocab_size": 131,
    "hidden_size": 48,
    "ffn_hidden_size": 76,
    "n_layer": 2,
    "n_head": 4,
    "seq_length": 128,
    "training_seqlen": 128,
    "layer_norm_epsilon": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for a context that is stretched from the beginning on."""
    first = fields.optional_integer("base_seqlen", 1, 2**28)
    trained = fields.integer("max_position_embeddings", 1, 2**28)
    if first is not None and trained > first:
        fields.unsupported("training_seqlen", trained, f"at most base_seqlen={first}: rotations are not stretched")
    heads, groups = fields.integer("num_attention_heads", 1, 2**12), fields.raw("num_key_value_heads")
    if groups not in (None, heads):
        fields.unsupported("num_key_value_heads", groups, f"as many as n_head={heads}")
    return BlockSettings(num_kv_heads=heads, joined="keys_values", o_bias=True, down_bias=True)


CONFIG = ConfigRules(
    names={
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "intermediate_size": "ffn_hidden_size",
        "rms_norm_eps": "layer_norm_epsilon",
        "max_position_embeddings": "training_seqlen",
    },
    blocks=_blocks,
    defaults={
        "vocab_size": 160256,
        "hidden_size": 4096,
        "n_layer": 30,
        "n_head": 32,
        "ffn_hidden_size": 12288,
        "layer_norm_epsilon": 1e-5,
        "training_seqlen": 8192,
    },
    built_in={"apply_residual_connection_post_layernorm": False, "embed_layernorm": False},
    # of positions behind the context, of training, and of how it is run
    ignorable=keys(
        "logn flash_attn attention_softmax_in_fp32 bias_dropout_fusion masked_softmax_fusion offset_alibi n_inner",
        "skip_bias_add skip_bias_add_qkv slow_but_exact",
    ),
    class_names=("TeleChat2ForCausalLM", "Telechat2ForCausalLM"),
)
build = partial(
    decoder,
    names=Names(
        *("transformer.h", "self_attention", "dense", "mlp", "up_proj", "down_proj"),
        joined="key_value",
        query="query",
        gate="gate_proj",
    ),
    ends=Ends("transformer.word_embeddings.weight", "transformer.ln_f"),
)
