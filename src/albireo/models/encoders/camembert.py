"""CamemBERT: RoBERTa of French.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.models.encoders import roberta

TINY = roberta.TINY | {"architectures": ["CamembertModel"], "model_type": "camembert"}
IGNORABLE_WEIGHTS = roberta.IGNORABLE_WEIGHTS
CONFIG = roberta.rules("Camembert")
build = roberta.build
