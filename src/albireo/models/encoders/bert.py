"""BERT: learned positions and token types, norms of what is added up; bge, e5, gte, MiniLM and their rerankers."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.encoder_layers import Names, encoder
from albireo.models.blocks.vocabulary_head import VocabularyHead
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier

TINY = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 96,
    "type_vocab_size": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}

NAMES = Names(
    "encoder.layer",
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
VOCABULARY = VocabularyHead(
    "cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"
)
#: What the classes that have one keep beside the layers, and no embedding asks for.
IGNORABLE_WEIGHTS = ("pooler.*", "cls.*", "classifier.*", "linear.*", "embeddings.position_ids")
#: ColBERT's class, over BERT and its kin: of each token a linear of its hidden state, of length 1.
COLBERT = "HF_ColBERT"
#: Keys that say nothing of what is computed here: of training, and of decoders that were made of encoders.
IGNORED = keys(
    "classifier_dropout classifier_dropout_prob",
    "label_smoothing_factor add_cross_attention cross_attention_hidden_size directionality",
    "pooler_fc_size pooler_num_attention_heads pooler_num_fc_layers pooler_size_per_head pooler_type",
)


def blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for positions that are not a table's rows, and for a decoder."""
    fields.one_of("position_embedding_type", ("absolute",), "absolute")
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=True,
        o_bias=True,
        ffn_bias=True,
        sees_both_ways=True,
        num_token_types=fields.integer("type_vocab_size", 1, 2**16, default=2),
    )


def pooled(fields: Fields, name: str) -> PoolingRule:
    """What a class gives: its first token's hidden state, scores of what its pooler makes of that, or vectors."""
    if name == COLBERT:
        return PoolingRule(pooling_type="all", head=(HeadStep("linear"),))
    if name != "BertForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    return classifier(fields, "cls", (HeadStep("pooler.dense", "tanh"), HeadStep("classifier")))


CONFIG = ConfigRules(
    names={"rms_norm_eps": "layer_norm_eps"},
    blocks=blocks,
    pooled=pooled,
    has_vocabulary=True,
    has_rope=False,
    activation="plain",
    defaults=sizes(
        768, 3072, 12, 12, vocab_size=30522, max_position_embeddings=512, layer_norm_eps=1e-12, hidden_act="gelu"
    ),
    ignorable=IGNORED,
    class_names=("BertModel", "BertForSequenceClassification", "BertForMaskedLM", "BertForPreTraining", COLBERT),
)


build = partial(encoder, names=NAMES, vocabulary=VOCABULARY)
