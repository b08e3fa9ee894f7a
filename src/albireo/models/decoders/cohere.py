"""Command R, Aya 23: a LayerNorm without a bias that attention and FFN both read, a factor on logits.

Its rotary pairs are neighbours.
"""

from __future__ import annotations

from albireo.json_file import Fields, keys
from albireo.models.blocks.plain_layers import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["CohereForCausalLM"],
    "model_type": "cohere",
    "vocab_size": 151,
    "intermediate_size": 76,
    "layer_norm_eps": 1e-5,
    "logit_scale": 0.3,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "use_qk_norm": False,
    "tie_word_embeddings": True,
    "bos_token_id": 5,
    "pad_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    bias = fields.flag("attention_bias", False)
    return BlockSettings(
        is_layer_norm=True,
        has_norm_bias=False,
        qkv_bias=bias,
        o_bias=bias,
        is_parallel=True,
        has_ffn_norm=False,
        has_qk_norm=fields.flag("use_qk_norm", False),
    )


CONFIG = ConfigRules(
    keys=keys("logit_scale"),
    names={"rms_norm_eps": "layer_norm_eps"},
    # Command R says the shorter length it was trained for first by the other name
    older_names={"model_max_length": "max_position_embeddings"},
    # Command R has 131,072 and, of its cache, 8,192
    deciding=frozenset({"model_max_length"}),
    blocks=_blocks,
    has_pairs_side_by_side=True,
    defaults={
        "layer_norm_eps": 1e-5,
        "logit_scale": 0.0625,
        "rope_theta": 500000.0,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
)
build = decoder
