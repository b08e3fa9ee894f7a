"""Matrices that some checkpoints hold otherwise than graphs read them: those of GPT-2's layers are [in, out].

Called by weights.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.models.safetensors_files import SafetensorsFiles
from albireo.models.text_part import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

#: Architectures that this file knows.
REARRANGED = ("gpt2",)
_TRANSPOSED = tuple(f".{module}.weight" for module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}

_Tensors = SafetensorsFiles | TextTensors


def rearranged(stored: _Tensors, config: Mapping[str, Any]) -> Plan:
    """The matrices of a checkpoint that are to be read otherwise. Args: config: what config.json holds."""
    plan = Plan()
    if config.get("model_type") not in REARRANGED:
        return plan
    for name in stored.names:
        dtype, shape = stored.dtype(name), stored.shape(name)
        if dtype is not None and name.endswith(_TRANSPOSED) and len(shape) == 2:
            read = partial(_transposed, stored, name, dtype)
            plan.add(Matrix(name, shape[::-1], None, (name,), read, dtype=dtype))
    return plan


def _transposed(stored: _Tensors, name: str, dtype: str) -> NDArray[np.generic]:
    numbers: NDArray[np.generic] = np.frombuffer(stored.buffer(name), _WORDS[dtype]).reshape(stored.shape(name))
    return np.ascontiguousarray(numbers.T)
