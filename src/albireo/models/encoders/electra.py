"""ELECTRA: BERT whose embeddings may be narrower than it is; of its two models the one that tells tokens apart."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.encoder_layers import encoder
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.encoders import bert
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier

TINY = bert.TINY | {"architectures": ["ElectraModel"], "model_type": "electra", "embedding_size": 24}
IGNORABLE_WEIGHTS = (
    *bert.IGNORABLE_WEIGHTS,
    "discriminator_predictions.*",
    "generator_predictions.*",
    "generator_lm_head.*",
)


def narrow_blocks(fields: Fields) -> BlockSettings:
    """BERT's, with embeddings of a width of their own."""
    width, hidden = (fields.integer(key, 1, MAX_WIDTH) for key in ("embedding_size", "hidden_size"))
    return replace(bert.blocks(fields), embedding_width=0 if width == hidden else width)


def _pooled(fields: Fields, name: str) -> PoolingRule:
    if name != "ElectraForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    return classifier(fields, "cls", (HeadStep("classifier.dense", "gelu"), HeadStep("classifier.out_proj")))


CONFIG = replace(
    bert.CONFIG,
    has_vocabulary=False,
    blocks=narrow_blocks,
    pooled=_pooled,
    defaults={
        **bert.CONFIG.defaults,
        "embedding_size": 128,
        "hidden_size": 256,
        "num_attention_heads": 4,
        "intermediate_size": 1024,
    },
    ignorable=bert.IGNORED | keys("summary_type summary_use_proj summary_activation summary_last_dropout"),
    class_names=("ElectraModel", "ElectraForSequenceClassification", "ElectraForPreTraining", "ElectraForMaskedLM"),
)


build = partial(encoder, names=bert.NAMES, widened="embeddings_project")
