"""CamemBERT: RoBERTa of French."""

from __future__ import annotations

from albireo.models.encoders import roberta

TINY = roberta.TINY | {"architectures": ["CamembertModel"], "model_type": "camembert"}
IGNORABLE_WEIGHTS = roberta.IGNORABLE_WEIGHTS
CONFIG = roberta.rules("Camembert")
build = roberta.build
