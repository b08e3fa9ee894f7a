"""DeBERTa 2 and 3: BERT whose scores also have products of queries, and of keys, with vectors of their distance.

Rerankers, NLI, prompt guards.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.encoder_layers import Parts, encoder
from albireo.models.checkpoint.distance_vectors import OF_KEYS, OF_QUERIES
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.encoders import bert
from albireo.models.settings.block_settings import BlockSettings, ByDistance
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.pooling_rule import HeadActivation, HeadStep, PoolingRule, classifier
from albireo.models.settings.rope_settings import MAX_POSITIONS

TINY = bert.TINY | {
    "architectures": ["DebertaV2Model"],
    "model_type": "deberta-v2",
    "type_vocab_size": 0,
    "layer_norm_eps": 1e-7,
    "relative_attention": True,
    "max_relative_positions": -1,
    "position_buckets": 16,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "pooler_hidden_act": "gelu",
}
NAMES = bert.NAMES._replace(q="attention.self.query_proj", k="attention.self.key_proj", v="attention.self.value_proj")
IGNORABLE_WEIGHTS = (
    *bert.IGNORABLE_WEIGHTS,
    # of how they were trained
    "lm_predictions.*",
    "mask_predictions.*",
    "lm_head.*",
)
#: Of products with vectors of distances: those of queries, and those of keys.
_WAYS = {"c2p", "p2c"}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for what other models of the code that it is of have."""
    if not fields.flag("relative_attention", False):
        fields.unsupported("relative_attention", False, "supported: true")
    fields.one_of("norm_rel_ebd", ("none", "layer_norm"), "none")
    fields.flag("share_att_key", False)  # what makes the vectors, see distance_vectors.py
    positions = fields.integer("max_position_embeddings", 1, MAX_POSITIONS)
    reach = fields.integer("max_relative_positions", -1, MAX_POSITIONS, default=-1)
    reach = positions if reach < 1 else reach
    buckets = fields.integer("position_buckets", -1, MAX_POSITIONS, default=-1)
    span = reach if buckets < 1 else buckets
    if buckets > 0 and (buckets < 4 or reach <= buckets):
        fields.unsupported("position_buckets", buckets, f"supported: 4 to less than the {reach} positions they are of")
    _check_ways(fields)
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=True,
        o_bias=True,
        ffn_bias=True,
        sees_both_ways=True,
        num_token_types=fields.integer("type_vocab_size", 0, 2**16, default=0),
        has_positions=fields.flag("position_biased_input", True),
        by_distance=ByDistance(2 * span, reach),
    )


def _check_ways(fields: Fields) -> None:
    """A list, or in older files words with strokes between."""
    given = fields.raw("pos_att_type")
    ways = given.lower().split("|") if isinstance(given, str) else fields.texts("pos_att_type")
    if {way.strip() for way in ways} != _WAYS:
        fields.unsupported("pos_att_type", given, "supported: p2c and c2p, both")


def _pooled(fields: Fields, name: str) -> PoolingRule:
    act, width = fields.text("pooler_hidden_act", "gelu"), fields.raw("pooler_hidden_size")
    if name != "DebertaV2ForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    if width not in (None, fields.raw("hidden_size")):
        fields.unsupported("pooler_hidden_size", width, "supported: hidden_size")
    known: dict[str, HeadActivation] = {"gelu": "gelu", "tanh": "tanh", "relu": "relu"}
    if act not in known:
        fields.unsupported("pooler_hidden_act", act, f"supported: {', '.join(known)}")
    return classifier(fields, "cls", (HeadStep("pooler.dense", known[act]), HeadStep("classifier")))


CONFIG = ConfigRules(
    names=bert.CONFIG.names,
    blocks=_blocks,
    pooled=_pooled,
    has_rope=False,
    activation="plain",
    defaults=sizes(
        1536, 6144, 24, 24, vocab_size=128100, max_position_embeddings=512, layer_norm_eps=1e-7, hidden_act="gelu"
    ),
    ignorable=bert.IGNORED | keys("pooler_dropout cls_dropout legacy summary_last_dropout"),
    class_names=("DebertaV2Model", "DebertaV2ForSequenceClassification", "DebertaV2ForMaskedLM"),
)


def _attend(b: GraphBuilder, c: ModelConfig, parts: Parts, layer: int, name: str) -> Value:
    near, inner = c.blocks.by_distance, f"{name}.attention.self"
    assert near is not None, "the architecture's rules read its keys"

    def products(x: Value, module: str) -> Value:
        weight = b.weight(f"{inner}.{module}.weight", (c.num_heads * near.num_columns, c.head_dim), c.dtype)
        return b.head_linear(b.cast(x, c.dtype), weight, c.num_heads)

    with b.part("near"):
        of_queries = products(parts["q"], OF_QUERIES)
    with b.part("near_keys"):
        of_keys = products(parts["k"], OF_KEYS)
    with b.part("kv"):
        b.kv_write(parts["k"], parts["v"], layer, c.num_kv_heads, c.head_dim)
    with b.part("attention"):
        a = b.attention(
            b.cast(parts["q"], c.dtype),
            by_columns=(of_queries, of_keys),
            layer=layer,
            num_heads=c.num_heads,
            num_kv_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            scale=(c.head_dim * (1 + len(_WAYS))) ** -0.5,
            window=None,
            softcap=None,
            both_ways=True,
            reach=near.reach,
        )
        return b.cast(a, c.dtype)


build = partial(encoder, names=NAMES, attend=_attend)
