"""RoBERTa: BERT without types of tokens to speak of, whose positions are counted behind the padding's."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.json_file import Fields
from albireo.models.blocks.encoder_layers import encoder
from albireo.models.blocks.vocabulary_head import VocabularyHead
from albireo.models.config import ConfigRules
from albireo.models.encoders import bert
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier
from albireo.speculative_config import MAX_VOCAB

TINY = bert.TINY | {
    "architectures": ["RobertaModel"],
    "model_type": "roberta",
    "type_vocab_size": 1,
    "max_position_embeddings": 98,
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
VOCABULARY = VocabularyHead("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", act="gelu")
IGNORABLE_WEIGHTS = ("pooler.*", "lm_head.*", "classifier.*", "linear.*", "embeddings.position_ids")


def blocks(fields: Fields) -> BlockSettings:
    """As BERT's; the first row of a position is the one behind the padding's."""
    padding = fields.integer("pad_token_id", 0, MAX_VOCAB, default=1)
    return replace(bert.blocks(fields), first_position=padding + 1)


def pooled(fields: Fields, name: str) -> PoolingRule:
    """As BERT's; a classifier has two linears of its own."""
    if name == bert.COLBERT:
        return bert.pooled(fields, name)
    if not name.endswith("ForSequenceClassification"):
        return PoolingRule(pooling_type="cls")
    return classifier(fields, "cls", (HeadStep("classifier.dense", "tanh"), HeadStep("classifier.out_proj")))


def rules(name: str) -> ConfigRules:
    """Of RoBERTa, and of what is called otherwise and is the same. Args: name: of its classes."""
    return replace(
        bert.CONFIG,
        blocks=blocks,
        pooled=pooled,
        defaults={**bert.CONFIG.defaults, "vocab_size": 50265, "layer_norm_eps": 1e-12, "pad_token_id": 1},
        class_names=(f"{name}Model", f"{name}ForSequenceClassification", f"{name}ForMaskedLM", bert.COLBERT),
    )


CONFIG = rules("Roberta")


build = partial(encoder, names=bert.NAMES, vocabulary=VOCABULARY)
