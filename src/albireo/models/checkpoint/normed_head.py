"""A head that is divided by lengths before it makes logits: each row by its own (Baichuan 2), or each column, of the
whole vocabulary, by its own (those Ling models whose files say norm_head). It is done once, as it is read.

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
#: Nothing is shorter than it.
_LEAST = 1e-12
#: Rows whose squares are held at once.
_AT_ONCE = 4096


def with_normed_head(
    plan: Plan, stored: SafetensorsFiles | TextTensors | FusedExperts, config: Mapping[str, Any]
) -> Plan:
    """The plan, with rows or columns of the head of length one where they are such in the model.

    A head that is quantized is taken as it lies. Args: config: of config.json.
    """
    kind = config.get("model_type")
    is_baichuan2 = kind == "baichuan" and (config.get("vocab_size") == _BAICHUAN2 or "z_loss_weight" in config)
    if not (is_baichuan2 or (kind == "bailing_moe" and config.get("norm_head"))):
        return plan
    if _HEAD in stored and _HEAD not in plan.matrices and len(shape := stored.shape(_HEAD)) == 2:
        plan.add(Matrix(_HEAD, shape, None, (_HEAD,), partial(_normed, stored, 1 if is_baichuan2 else 0)))
    return plan


def _normed(stored: SafetensorsFiles | TextTensors | FusedExperts, axis: int) -> NDArray[np.generic]:
    """Args: axis: along which lengths are one."""
    rows = stored.tensor(_HEAD).to_float32()
    squares = np.zeros(rows.shape[1 - axis], np.float64)
    for start in range(0, len(rows), _AT_ONCE):
        sums = np.square(rows[start : start + _AT_ONCE], dtype=np.float64).sum(axis=axis)
        squares[start if axis else 0 :][: len(sums)] += sums
    lengths = np.maximum(np.sqrt(squares), _LEAST).astype(np.float32)
    return np.asarray(rows / np.expand_dims(lengths, axis), np.float32)
