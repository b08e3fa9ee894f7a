"""GTE as it was published, with code of its own, which is not run: gte-multilingual-base, gte-*-en-v1.5."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.encoders import gte

TINY = gte.TINY | {"architectures": ["NewModel"], "model_type": "new"}
IGNORABLE_WEIGHTS = gte.IGNORABLE_WEIGHTS
CONFIG = replace(
    gte.CONFIG,
    class_names=("NewModel", "NewForSequenceClassification", "NewForMaskedLM"),
    # what the code has where its files do not say
    defaults={**gte.CONFIG.defaults, "vocab_size": 30528, "max_position_embeddings": 2048, "rope_theta": 10000.0},
)
build = gte.build
