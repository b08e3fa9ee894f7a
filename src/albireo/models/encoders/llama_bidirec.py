"""Llama whose tokens see what comes behind them, too: llama-nemotron-embed; its code, in its directory, is not run."""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import Fields, keys
from albireo.models.decoders import llama
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.pooling_rule import PoolingRule
from albireo.params import PoolingType

TINY = llama.TINY | {"architectures": ["LlamaBidirectionalModel"], "model_type": "llama_bidirec", "pooling": "avg"}
IGNORABLE_WEIGHTS = ("lm_head.*",)
_POOLING: dict[str, PoolingType] = {"avg": "mean", "cls": "cls", "last": "last"}


def _pooled(fields: Fields, name: str) -> PoolingRule:
    kind = fields.one_of("pooling", _POOLING, "avg")
    return PoolingRule(pooling_type=_POOLING[kind])


CONFIG = replace(
    llama.CONFIG,
    blocks=BlockSettings(sees_both_ways=True),
    pooled=_pooled,
    # of scores of its reranker, which is another class
    ignorable=keys("auto_map"),
    class_names=("LlamaBidirectionalModel",),
)
build = llama.build
