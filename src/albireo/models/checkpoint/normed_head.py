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

from albireo.errors import UnsupportedModel
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

    Args: config: of config.json.
    Raises: UnsupportedModel for a head that is quantized, which is as long as it lies.
    """
    if (axis := normed_axis(config)) is None:
        return plan
    if _HEAD in plan.matrices:
        raise UnsupportedModel(
            f"{_HEAD}: the head of a model_type={config['model_type']} like this is divided by lengths, which is done "
            "to numbers alone; a checkpoint whose head is quantized is not read. --quantization does it at load"
        )
    if _HEAD in stored and len(shape := stored.shape(_HEAD)) == 2:
        plan.add(Matrix(_HEAD, shape, None, (_HEAD,), partial(_normed, stored, axis)))
    return plan


def normed_axis(config: Mapping[str, Any]) -> int | None:
    """The axis along which lengths of the head are one; None where they are as they lie. Args: of config.json."""
    kind = config.get("model_type")
    if kind == "baichuan" and (config.get("vocab_size") == _BAICHUAN2 or "z_loss_weight" in config):
        return 1
    return 0 if kind == "bailing_moe" and config.get("norm_head") else None


def _normed(stored: SafetensorsFiles | TextTensors | FusedExperts, axis: int) -> NDArray[np.generic]:
    """Args: axis: along which lengths are one."""
    rows = stored.tensor(_HEAD).to_float32()
    squares = np.zeros(rows.shape[1 - axis], np.float64)
    for start in range(0, len(rows), _AT_ONCE):
        sums = np.square(rows[start : start + _AT_ONCE], dtype=np.float64).sum(axis=axis)
        squares[start if axis else 0 :][: len(sums)] += sums
    lengths = np.maximum(np.sqrt(squares), _LEAST).astype(np.float32)
    return np.asarray(rows / np.expand_dims(lengths, axis), np.float32)
