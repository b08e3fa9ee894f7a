"""The text part of CLIP: tokens see what is before them, and the last one's state is what a text is.

Source: Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks import paired_text
from albireo.models.config import ConfigRules
from albireo.models.settings.paired import rule_of_pairs
from albireo.models.settings.pooling_rule import PoolingRule

TINY = paired_text.TINY | {
    "architectures": ["CLIPTextModelWithProjection"],
    "model_type": "clip_text_model",
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "projection_dim": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
IGNORABLE_WEIGHTS = paired_text.IGNORABLE_WEIGHTS


def _pooled(fields: Fields, name: str) -> PoolingRule:
    return rule_of_pairs(fields, fields.integer("projection_dim", 1, 2**20, 512))


CONFIG = ConfigRules(
    names={"rms_norm_eps": "layer_norm_eps"},
    blocks=paired_text.BLOCKS,
    pooled=_pooled,
    has_rope=False,
    activation="paired",
    defaults=paired_text.defaults("clip_text_model", 1e-5, "quick_gelu"),
    # of how weights once began, and what a text of nothing but padding would be
    ignorable=keys("initializer_factor dropout"),
    class_names=("CLIPTextModelWithProjection",),
)
build = partial(paired_text.build, projection="text_projection", has_bias=False)
