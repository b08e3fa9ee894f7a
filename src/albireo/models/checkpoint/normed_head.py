"""A head whose rows are each divided by their length before they make logits (Baichuan 2, and those Ling models whose
files say norm_head): it is done once, as it is read.

Called by weights.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.models.checkpoint.fused_experts import FusedExperts
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

_HEAD = "lm_head.weight"
#: Rows of Baichuan 2's vocabulary; those of Baichuan 1 are 64,000, and its heads are as they lie.
_BAICHUAN2 = 125696
#: A row is no shorter than it.
_LEAST = 1e-12


def with_normed_head(
    plan: Plan, stored: SafetensorsFiles | TextTensors | FusedExperts, config: Mapping[str, Any]
) -> Plan:
    """The plan, with rows of the head of length one where they are such in the model. Args: config: of config.json."""
    kind = config.get("model_type")
    is_baichuan2 = kind == "baichuan" and (config.get("vocab_size") == _BAICHUAN2 or "z_loss_weight" in config)
    if not (is_baichuan2 or (kind == "bailing_moe" and config.get("norm_head"))):
        return plan
    if _HEAD in stored and _HEAD not in plan.matrices and len(shape := stored.shape(_HEAD)) == 2:
        plan.add(Matrix(_HEAD, shape, None, (_HEAD,), partial(_normed, stored)))
    return plan


def _normed(stored: SafetensorsFiles | TextTensors | FusedExperts) -> NDArray[np.generic]:
    rows = stored.tensor(_HEAD).to_float32()
    lengths = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1, keepdims=True))
    return np.asarray(rows / np.maximum(lengths, _LEAST), np.float32)
