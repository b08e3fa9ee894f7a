"""ALBERT: BERT whose layers, or groups of them, have the same weights, and embeddings narrower than it is."""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.encoder_layers import Names, encoder
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_WIDTH
from albireo.models.encoders import bert, electra
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier

TINY = bert.TINY | {
    "architectures": ["AlbertModel"],
    "model_type": "albert",
    "embedding_size": 24,
    "num_hidden_layers": 4,
    "num_hidden_groups": 2,
    "inner_group_num": 1,
    "hidden_act": "gelu_new",
    "bos_token_id": 2,
    "eos_token_id": 3,
}
NAMES = Names(
    "encoder.albert_layer_groups",
    "attention.query",
    "attention.key",
    "attention.value",
    "attention.dense",
    "attention.LayerNorm",
    "ffn",
    "ffn_output",
    "full_layer_layer_norm",
)
IGNORABLE_WEIGHTS = ("pooler.*", "predictions.*", "sop_classifier.*", "classifier.*", "embeddings.position_ids")


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for layers that take turns within a group."""
    inner = fields.integer("inner_group_num", 1, MAX_LAYERS, default=1)
    if inner != 1:
        fields.unsupported("inner_group_num", inner, "supported: 1")
    groups = fields.integer("num_hidden_groups", 1, MAX_LAYERS, default=1)
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    if layers < groups:
        fields.fail("num_hidden_groups", groups, f"must be at most num_hidden_layers={layers}")
    # its linear is there where nothing is narrow, too
    width = fields.integer("embedding_size", 1, MAX_WIDTH)
    return replace(electra.narrow_blocks(fields), layer_groups=groups, embedding_width=width)


def _pooled(fields: Fields, name: str) -> PoolingRule:
    if name != "AlbertForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    return classifier(fields, "cls", (HeadStep("pooler", "tanh"), HeadStep("classifier")))


CONFIG = replace(
    bert.CONFIG,
    has_vocabulary=False,
    blocks=_blocks,
    pooled=_pooled,
    defaults={
        **bert.CONFIG.defaults,
        "vocab_size": 30000,
        "embedding_size": 128,
        "hidden_size": 4096,
        "num_attention_heads": 64,
        "intermediate_size": 16384,
        "hidden_act": "gelu_new",
    },
    # of the code that it was first published with
    ignorable=bert.IGNORED | keys("net_structure_type num_memory_blocks gap_size down_scale_factor layers_to_keep"),
    class_names=("AlbertModel", "AlbertForSequenceClassification", "AlbertForMaskedLM", "AlbertForPreTraining"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    groups = config.blocks.layer_groups

    def name(layer: int) -> str:
        # divided as transformers divides
        return f"{NAMES.layers}.{int(layer / (config.num_layers / groups))}.albert_layers.0"

    widened = "encoder.embedding_hidden_mapping_in"
    return encoder(config, max_model_len, names=NAMES, widened=widened, layer_names=name)
