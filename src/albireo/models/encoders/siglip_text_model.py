"""The text part of SigLIP, and of SigLIP 2 of fixed pictures: all tokens see each other, those that make a text as long
as all others too, and the last one's state is what it is.

Sources: Zhai et al. 2023, SigLIP; Tschannen et al. 2025, SigLIP 2.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.json_file import Fields
from albireo.models.blocks import paired_text
from albireo.models.config import ConfigRules
from albireo.models.settings.paired import rule_of_pairs
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.models.settings.rope_settings import MAX_POSITIONS

TINY = paired_text.TINY | {
    "architectures": ["SiglipTextModel"],
    "model_type": "siglip_text_model",
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
    "max_position_embeddings": 16,
    "projection_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
IGNORABLE_WEIGHTS = paired_text.IGNORABLE_WEIGHTS


def _pooled(fields: Fields, name: str) -> PoolingRule:
    width = fields.optional_integer("projection_size", 1, 2**20) or fields.integer("hidden_size", 1, 2**20)
    return replace(rule_of_pairs(fields, width), pads_to=fields.integer("max_position_embeddings", 1, MAX_POSITIONS))


CONFIG = ConfigRules(
    names={"rms_norm_eps": "layer_norm_eps"},
    blocks=replace(paired_text.BLOCKS, sees_both_ways=True),
    pooled=_pooled,
    has_rope=False,
    activation="paired",
    defaults=paired_text.defaults("siglip_text_model", 1e-6, "gelu_pytorch_tanh"),
    class_names=("SiglipTextModel",),
)
build = partial(paired_text.build, projection="text_model.head", has_bias=True)
