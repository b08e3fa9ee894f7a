"""Jina Embeddings 3: XLM-RoBERTa that rotates; its adapters, one a task, are merged or given with a request."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from albireo.json_file import Fields
from albireo.models.blocks.encoder_layers import encoder
from albireo.models.config import ConfigRules
from albireo.models.encoders import bert, nomic_bert, roberta
from albireo.models.settings.block_settings import BlockSettings

TINY = nomic_bert.TINY | {
    "architectures": ["JinaEmbeddingsV3Model"],
    "model_type": "jina_embeddings_v3",
    "type_vocab_size": 1,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "rope_parameters": {"rope_type": "default", "rope_theta": 20000.0},
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
NAMES = nomic_bert.NAMES._replace(up="mlp.fc1", down="mlp.fc2", gate="")
IGNORABLE_WEIGHTS = roberta.IGNORABLE_WEIGHTS


def _blocks(fields: Fields) -> BlockSettings:
    return replace(bert.blocks(fields), has_positions=False)


CONFIG = ConfigRules(
    names=bert.CONFIG.names,
    blocks=_blocks,
    pooled=roberta.pooled,
    activation="plain",
    defaults={
        **bert.CONFIG.defaults,
        "vocab_size": 250002,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "max_position_embeddings": 8194,
        "type_vocab_size": 1,
        "layer_norm_eps": 1e-5,
        "rope_theta": 20000.0,
    },
    ignorable=bert.IGNORED,
    class_names=(
        "JinaEmbeddingsV3Model",
        "JinaEmbeddingsV3ForSequenceClassification",
        "JinaEmbeddingsV3ForMaskedLM",
    ),
)


build = partial(encoder, names=NAMES, rotates=True)
