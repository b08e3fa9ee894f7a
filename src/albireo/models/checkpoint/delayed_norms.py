"""Norms before FFNs of Voxtral Realtime, whose weights are multiplied by what two linears make of the time that the
text is behind the sound: a model has one such time, so that what comes of it are weights.

Called by rearranged.py. Does not know graphs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.json_file import Fields
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

_FIRST, _SECOND, _NORM = (
    ".ada_rms_norm.linear1.weight",
    ".ada_rms_norm.linear2.weight",
    ".post_attention_layernorm.weight",
)
#: Slowest of the waves that say a time.
_SLOWEST = 10000.0


def delayed_norms(stored: SafetensorsFiles | TextTensors, config: Mapping[str, Any]) -> Plan:
    """Those of every layer. Args: config: what config.json holds."""
    plan = Plan()
    delay = Fields(config, "config.json").integer("default_num_delay_tokens", 0, 1024, 6)
    for name in stored.names:
        layer = name.removesuffix(_FIRST)
        names = tuple(f"{layer}{end}" for end in (_NORM, _FIRST, _SECOND))
        if name == layer or any(each not in stored for each in names):
            continue
        norm = f"{layer}{_NORM}"
        plan.add(Matrix(norm, stored.shape(norm), None, names, partial(_delayed, stored, names, delay)))
    return plan


def _delayed(stored: SafetensorsFiles | TextTensors, names: tuple[str, ...], delay: int) -> NDArray[np.generic]:
    weight, first, second = (stored.tensor(name).to_float32().astype(np.float64) for name in names)
    half = len(weight) // 2
    angles = delay * np.exp(-np.log(_SLOWEST) * np.arange(half) / half)
    hidden = first @ np.concatenate([np.cos(angles), np.sin(angles)])
    gelu = 0.5 * hidden * (1.0 + np.vectorize(math.erf)(hidden / np.sqrt(2.0)))
    return np.asarray(weight * (1.0 + second @ gelu), np.float32)
