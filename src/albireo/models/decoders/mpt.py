"""MPT: scores that fall with distance; a LayerNorm with neither biases nor those of linears; q, k and v in one
tensor.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.alibi import SPAN, slopes_of_mpt
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.known_keys import IGNORABLE_KEYS
from albireo.models.settings.multipliers import Multipliers

#: As many heads as are no power of two.
TINY = {
    "architectures": ["MPTForCausalLM"],
    "model_type": "mpt",
    "vocab_size": 113,
    "d_model": 48,
    "n_layers": 2,
    "n_heads": 6,
    "max_seq_len": 128,
    "expansion_ratio": 4,
    "layer_norm_epsilon": 1e-5,
    "no_bias": True,
    "attn_config": {"alibi": True, "alibi_bias_max": 8, "attn_impl": "torch", "softmax_scale": None},
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
#: Of attn_config: what is computed; transformers computes it whatever a file says.
_FIXED = {
    "alibi": (True,),
    "attn_type": ("multihead_attention",),
    "attn_impl": ("torch", "flash", "triton"),
    "sliding_window_size": (-1,),
}
#: Of files written since there are models that rotate, which say how they would.
_OF_ROTATIONS = ("rope_theta", "rope_impl", "rope_dail_config", "rope_hf_config")


def _attention(fields: Fields) -> Fields:
    return Fields(fields.table("attn_config") or {}, "config.json: attn_config")


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for what is done to queries, keys and values, or in place of slopes."""
    heads, said = fields.integer("num_attention_heads", 1, MAX_HEADS), _attention(fields)
    span = said.number("alibi_bias_max", 1.0, 64.0, default=SPAN)
    said.raw("softmax_scale")
    said.raw("clip_qkv")
    # prefix_lm, attn_uses_sequence_id, qk_ln and others must say nothing
    if not said.raw("rope"):
        for key in _OF_ROTATIONS:
            said.raw(key)
    elif said.flag("rope", False):
        said.unsupported("rope", True, "scores fall with distance, and nothing is rotated")
    said.refuse_unread(IGNORABLE_KEYS | {"attn_pdrop", "dtype", "model_type", "torch_dtype"}, _FIXED)
    return BlockSettings(is_layer_norm=True, has_norm_bias=False, has_rotation=False, slopes=slopes_of_mpt(heads, span))


def _multipliers(fields: Fields, known: frozenset[str], default: Multipliers) -> Multipliers:
    said = _attention(fields)
    scale, limit = (said.optional_number(key, 1e-6, 1e6) for key in ("softmax_scale", "clip_qkv"))
    return Multipliers(attention=scale, qkv_limit=limit)


CONFIG = ConfigRules(
    names={
        "hidden_size": "d_model",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "max_position_embeddings": "max_seq_len",
        "rms_norm_eps": "layer_norm_epsilon",
    },
    blocks=_blocks,
    own_multipliers=_multipliers,
    ffn_factor=4,
    has_rope=False,
    activation="plain",
    built_in={
        "expansion_ratio": 4,
        "no_bias": True,
        "norm_type": "low_precision_layernorm",
        "ffn_config": {"ffn_type": "mptmlp"},
    },
    defaults={
        "d_model": 2048,
        "n_heads": 16,
        "n_layers": 24,
        "max_seq_len": 2048,
        "vocab_size": 50368,
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    },
    # of training, and of positions that are not added where scores fall
    ignorable=keys("embedding_fraction emb_pdrop init_config init_device learned_pos_emb tokenizer_name verbose"),
    class_names=("MptForCausalLM", "MPTForCausalLM"),
)
build = partial(
    decoder,
    names=Names(
        *("transformer.blocks", "attn", "out_proj", "ffn", "up_proj", "down_proj", "norm_1", "norm_2"), joined="Wqkv"
    ),
    ends=Ends("transformer.wte.weight", "transformer.norm_f"),
)
