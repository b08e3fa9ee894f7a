"""XLM-RoBERTa: RoBERTa with a vocabulary of a hundred languages; multilingual e5, bge-m3 and their rerankers."""

from __future__ import annotations

from albireo.models.encoders import roberta

TINY = roberta.TINY | {"architectures": ["XLMRobertaModel"], "model_type": "xlm-roberta"}
IGNORABLE_WEIGHTS = roberta.IGNORABLE_WEIGHTS
CONFIG = roberta.rules("XLMRoberta")
build = roberta.build
