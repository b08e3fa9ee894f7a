"""DistilBERT: BERT of half the layers, without token types."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.encoder_layers import Names, encoder
from albireo.models.blocks.vocabulary_head import VocabularyHead
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier

TINY = {
    "architectures": ["DistilBertModel"],
    "model_type": "distilbert",
    "vocab_size": 131,
    "dim": 48,
    "hidden_dim": 80,
    "n_layers": 2,
    "n_heads": 3,
    "max_position_embeddings": 96,
    "activation": "gelu",
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
NAMES = Names(
    "transformer.layer",
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "sa_layer_norm",
    "ffn.lin1",
    "ffn.lin2",
    "output_layer_norm",
)
VOCABULARY = VocabularyHead("vocab_transform", "vocab_layer_norm", "vocab_projector.bias")
IGNORABLE_WEIGHTS = ("pre_classifier.*", "classifier.*", "vocab_transform.*", "vocab_layer_norm.*", "vocab_projector.*")


def _pooled(fields: Fields, name: str) -> PoolingRule:
    if name != "DistilBertForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    return classifier(fields, "cls", (HeadStep("pre_classifier", "relu"), HeadStep("classifier")))


CONFIG = ConfigRules(
    names={
        "hidden_size": "dim",
        "intermediate_size": "hidden_dim",
        "num_hidden_layers": "n_layers",
        "num_attention_heads": "n_heads",
        "hidden_act": "activation",
    },
    blocks=BlockSettings(is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True, sees_both_ways=True),
    pooled=_pooled,
    has_vocabulary=True,
    has_rope=False,
    activation="plain",
    # its class has this eps and no key for it
    defaults={
        "vocab_size": 30522,
        "dim": 768,
        "hidden_dim": 3072,
        "n_layers": 6,
        "n_heads": 12,
        "max_position_embeddings": 512,
        "activation": "gelu",
        "rms_norm_eps": 1e-12,
    },
    # sinusoids are what a table was made of before training
    ignorable=keys("dropout seq_classif_dropout qa_dropout sinusoidal_pos_embds tie_weights_"),
    class_names=("DistilBertModel", "DistilBertForSequenceClassification", "DistilBertForMaskedLM"),
)


build = partial(encoder, names=NAMES, vocabulary=VOCABULARY)
