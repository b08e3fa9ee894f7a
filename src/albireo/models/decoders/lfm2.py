"""LFM2 (350M, 700M, 1.2B, 2.6B) and LFM2.5: gated short convolutions of three rows, and between them layers with
attention, each head of whose queries and keys is normed.
"""

from __future__ import annotations

from albireo.json_file import Fields
from albireo.models.blocks.short_conv import short_conv_decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings

#: The second and the last layer have attention; an FFN of 2/3 of 100 channels, rounded up to 72.
TINY = {
    "architectures": ["Lfm2ForCausalLM"],
    "model_type": "lfm2",
    "vocab_size": 151,
    "hidden_size": 40,
    "block_dim": 40,
    "block_ff_dim": 100,
    "block_auto_adjust_ff_dim": True,
    "block_ffn_dim_multiplier": 1.0,
    "block_multiple_of": 8,
    "block_mlp_init_scale": 1.0,
    "block_norm_eps": 1e-5,
    "block_out_init_scale": 1.0,
    "block_use_swiglu": True,
    "block_use_xavier_init": True,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "full_attn_idxs": [1, 3],
    "conv_L_cache": 3,
    "conv_bias": False,
    "conv_dim": 40,
    "conv_dim_out": 40,
    "conv_use_xavier_init": True,
    "max_position_embeddings": 128,
    "norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "use_pos_enc": True,
    "tie_embedding": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

#: Of a key that some files have: whose value it repeats.
_REPEATED = {
    "block_dim": "hidden_size",
    "conv_dim": "hidden_size",
    "conv_dim_out": "hidden_size",
    "num_heads": "num_attention_heads",
    "block_norm_eps": "norm_eps",
}


def check_repeated(fields: Fields) -> None:
    """Raises: UnsupportedModel for a key that says something else than the one that it repeats."""
    for key, repeated in _REPEATED.items():
        value, wanted = fields.raw(key), fields.raw(repeated)
        if value is not None and value != wanted:
            fields.unsupported(key, value, f"it must be {repeated}={wanted}")


def _blocks(fields: Fields) -> BlockSettings:
    """An FFN's width is two thirds of what is said, times a factor, rounded up; or what is said."""
    check_repeated(fields)
    width = fields.integer("intermediate_size", 1, MAX_WIDTH)
    factor = fields.number("block_ffn_dim_multiplier", 2**-10, 2**10, default=1.0)
    multiple = fields.integer("block_multiple_of", 1, MAX_WIDTH, default=256)
    if fields.flag("block_auto_adjust_ff_dim", True):
        width = -(-int(factor * int(2 * width / 3)) // multiple) * multiple
        if not 1 <= width <= MAX_WIDTH:
            fields.fail("intermediate_size", fields.raw("intermediate_size"), f"gives FFNs of {width} channels")
    return BlockSettings(ffn_width=width)


#: Keys of LFM2 with experts, too.
DEFAULTS = {"tie_word_embeddings": True, "norm_eps": 1e-5, "rope_theta": 1000000.0, "num_key_value_heads": 8}
CONFIG = ConfigRules(
    defaults=DEFAULTS,
    names={"rms_norm_eps": "norm_eps"},
    older_names={"tie_embedding": "tie_word_embeddings", "block_ff_dim": "intermediate_size", "theta": "rope_theta"},
    deciding=frozenset({"tie_embedding", "block_ff_dim"}),
    built_in={"block_use_swiglu": True, "use_pos_enc": True},
    blocks=_blocks,
    recurrent="short_conv",
    # how weights began
    ignorable=frozenset(
        {"block_mlp_init_scale", "block_out_init_scale", "block_use_xavier_init", "conv_use_xavier_init"}
    ),
)
build = short_conv_decoder
