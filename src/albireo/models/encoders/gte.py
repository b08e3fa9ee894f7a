"""GTE: BERT that rotates, with a gate in its FFN; gte-multilingual, gte-en-v1.5 and arctic-embed-m-v2, and
rerankers.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.encoder_layers import encoder
from albireo.models.config import ConfigRules
from albireo.models.encoders import bert, nomic_bert
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.pooling_rule import PoolingRule

TINY = nomic_bert.TINY | {
    "architectures": ["GteModel"],
    "model_type": "gte",
    "type_vocab_size": 1,
    "hidden_act": "gelu",
    "rope_parameters": {"rope_type": "default", "rope_theta": 160000.0},
    "pad_token_id": 1,
}
#: Of those published with code of their own, some have what gives a weight to each token.
IGNORABLE_WEIGHTS = ("pooler.*", "lm_head.*", "classifier.*")


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(
        is_layer_norm=True,
        qkv_bias=True,
        o_bias=True,
        ffn_bias=True,
        sees_both_ways=True,
        has_positions=False,
        num_token_types=fields.integer("type_vocab_size", 0, 2**16, default=1),
    )


def _pooled(fields: Fields, name: str) -> PoolingRule:
    return bert.pooled(fields, "Bert" + name.removeprefix("Gte").removeprefix("New"))


CONFIG = ConfigRules(
    keys=frozenset(["ntk"]),
    names=bert.CONFIG.names,
    blocks=_blocks,
    pooled=_pooled,
    activation="exact_gate",
    built_in={"layer_norm_type": "layer_norm", "position_embedding_type": "rope", "pack_qkv": True},
    defaults={
        **nomic_bert.CONFIG.defaults,
        "vocab_size": 250048,
        "max_position_embeddings": 8192,
        "hidden_act": "gelu",
        "rope_theta": 160000.0,
        "pad_token_id": 1,
    },
    # code of the directory, which is never run, and how that code runs
    ignorable=bert.IGNORED | keys("auto_map unpad_inputs use_memory_efficient_attention"),
    class_names=("GteModel", "GteForSequenceClassification", "GteForMaskedLM"),
)


build = partial(encoder, names=nomic_bert.NAMES, rotates=True)
