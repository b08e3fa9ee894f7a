"""Jais 13B and 30B, and the family of 590M to 30B: gpt2 whose scores fall with distance, with a gate in the FFN, and
embeddings, scores and logits times numbers of their own. Matrices lie transposed (rearranged.py).
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.alibi import slopes_of
from albireo.models.blocks.layers import Ends
from albireo.models.blocks.plain_layers import Names, decoder
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS, MAX_WIDTH
from albireo.models.decoders import gpt2
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.multipliers import Multipliers

#: As many heads as are no power of two.
TINY = {
    "architectures": ["JAISLMHeadModel"],
    "model_type": "jais",
    "vocab_size": 113,
    "n_embd": 48,
    "n_inner": 76,
    "n_layer": 2,
    "n_head": 6,
    "n_positions": 128,
    "layer_norm_epsilon": 1e-5,
    "activation_function": "swiglu",
    "position_embedding_type": "alibi",
    "scale_qk_dot_by_d": True,
    "embeddings_scale": 4.6,
    "width_scale": 0.4,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for positions of a table."""
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    fields.one_of("position_embedding_type", ("alibi",), "learned")
    return BlockSettings(
        is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True, has_rotation=False, slopes=slopes_of(heads)
    )


def _multipliers(fields: Fields, known: frozenset[str], default: Multipliers) -> Multipliers:
    """Two names of each: of the first models, and of the family."""

    def of(*names: str) -> float:
        return next((n for name in names if (n := fields.optional_number(name, 1e-6, 1e6)) is not None), 1.0)

    by_width = fields.flag("scale_qk_dot_by_d", fields.flag("mup_scale_qk_dot_by_d", False))
    head_dim = fields.integer("hidden_size", 1, MAX_WIDTH) // fields.integer("num_attention_heads", 1, MAX_HEADS)
    made = of("mup_output_alpha") * of("mup_width_scale")
    width = fields.optional_number("width_scale", 1e-6, 1e6)
    return Multipliers(
        embedding=of("embeddings_scale", "mup_embeddings_scale"),
        attention=1.0 / head_dim if by_width else None,
        logits=1.0 / (made if width is None else width),
    )


CONFIG = ConfigRules(
    names=gpt2.NAMES,
    blocks=_blocks,
    own_multipliers=_multipliers,
    ffn_factor=4,
    has_rope=False,
    activation="swiglu",
    defaults={**gpt2.CONFIG.defaults, "activation_function": "swiglu"},
    # scores are summed and compared in float32 anyway
    ignorable=keys("reorder_and_upcast_attn"),
    class_names=("JAISLMHeadModel",),
)
#: Which how many heads there are says.
IGNORABLE_WEIGHTS = ("transformer.relative_pe.slopes",)
build = partial(
    decoder,
    names=Names(
        *("transformer.h", "attn", "c_proj", "mlp", "c_fc", "c_proj", "ln_1", "ln_2"), joined="c_attn", gate="c_fc2"
    ),
    ends=Ends("transformer.wte.weight", "transformer.ln_f"),
)
