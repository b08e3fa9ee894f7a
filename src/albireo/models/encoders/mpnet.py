"""MPNet: BERT whose scores also depend on how far two tokens are from each other; all-mpnet, multi-qa-mpnet."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.json_file import Fields
from albireo.models.blocks.encoder_layers import Names, encoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.encoders import bert, roberta
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["MPNetModel"],
    "model_type": "mpnet",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "max_position_embeddings": 98,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "relative_attention_num_buckets": 32,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
NAMES = Names(
    "encoder.layer",
    "attention.attn.q",
    "attention.attn.k",
    "attention.attn.v",
    "attention.attn.o",
    "attention.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
IGNORABLE_WEIGHTS = roberta.IGNORABLE_WEIGHTS
#: Rows of the table of distances, half of them behind a token; and the distance from which on the last one holds.
BUCKETS, FARTHEST = 32, 128
#: Row of position 0, whatever the padding's id.
_FIRST = 2


def _blocks(fields: Fields) -> BlockSettings:
    buckets = fields.integer("relative_attention_num_buckets", 1, 2**16, default=BUCKETS)
    if buckets != BUCKETS:
        fields.unsupported("relative_attention_num_buckets", buckets, f"supported: {BUCKETS}")
    return BlockSettings(
        is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True, sees_both_ways=True, first_position=_FIRST
    )


CONFIG = ConfigRules(
    names=bert.CONFIG.names,
    blocks=_blocks,
    pooled=roberta.pooled,
    has_vocabulary=True,
    has_rope=False,
    activation="plain",
    defaults={**bert.CONFIG.defaults, "vocab_size": 30527},
    ignorable=bert.IGNORED,
    class_names=("MPNetModel", "MPNetForSequenceClassification", "MPNetForMaskedLM"),
)


def bucket(distance: int) -> int:
    """Row of the table for a token so many behind: the near ones have their own, the others share by logarithm.

    Source: Raffel et al. 2020 (T5); rounded as transformers does, in float32.
    """
    half = BUCKETS // 2
    near, far = half // 2, abs(distance)
    if far >= near:
        growth = np.log(np.float32(far) / np.float32(near)) / np.float32(math.log(FARTHEST / near))
        far = min(half - 1, near + int(growth * np.float32(half - near)))
    return far + (half if distance > 0 else 0)


def distances(b: GraphBuilder, c: ModelConfig, source: str = "encoder.relative_attention_bias.weight") -> Value:
    """[2 * FARTHEST + 1, H]: rows of the table. Args: source: its tensor."""
    rows = [bucket(distance) for distance in range(-FARTHEST, FARTHEST + 1)]
    segments = tuple(RowSegment(source, row, row + 1) for row in rows)
    return b.weight(source, (len(rows), c.num_heads), "float32", segments=segments)


build = partial(encoder, names=NAMES, distances=distances, vocabulary=roberta.VOCABULARY)
