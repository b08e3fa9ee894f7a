"""ERNIE 1.0 to 3.0 (Baidu), and text2vec made of it: BERT, with a row of a table of tasks added to embeddings: the
first, which transformers takes where no task is said.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import Fields
from albireo.models.encoders import bert
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.pooling_rule import HeadStep, PoolingRule, classifier

TINY = bert.TINY | {
    "architectures": ["ErnieModel"],
    "model_type": "ernie",
    "use_task_id": True,
    "task_type_vocab_size": 3,
}
IGNORABLE_WEIGHTS = bert.IGNORABLE_WEIGHTS


def _blocks(fields: Fields) -> BlockSettings:
    tasks = fields.integer("task_type_vocab_size", 1, 2**16, default=3)
    return replace(bert.blocks(fields), num_tasks=tasks if fields.flag("use_task_id", False) else 0)


def _pooled(fields: Fields, name: str) -> PoolingRule:
    if name != "ErnieForSequenceClassification":
        return PoolingRule(pooling_type="cls")
    return classifier(fields, "cls", (HeadStep("pooler.dense", "tanh"), HeadStep("classifier")))


CONFIG = replace(
    bert.CONFIG,
    blocks=_blocks,
    pooled=_pooled,
    class_names=("ErnieModel", "ErnieForSequenceClassification", "ErnieForMaskedLM", "ErnieForPreTraining"),
)
build = bert.build
