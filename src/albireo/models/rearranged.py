"""Matrices that some checkpoints hold otherwise than graphs read them: transposed, or their rows in another order.

Called by weights.py. Does not know graphs.

    gpt2     the matrices of a layer are [in, out]
    cohere   the two numbers of each rotary pair of q and k lie side by side; graphs have them half a head apart
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import ModelError, WeightMismatch, short
from albireo.models.safetensors_files import SafetensorsFiles
from albireo.models.text_part import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

#: Architectures that this file knows.
REARRANGED = ("gpt2", "cohere")
_TRANSPOSED = tuple(f".{module}.weight" for module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"))
_PAIRED = {".q_proj.": "num_attention_heads", ".k_proj.": "num_key_value_heads"}
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}

_Tensors = SafetensorsFiles | TextTensors


def rearranged(stored: _Tensors, config: Mapping[str, Any]) -> Plan:
    """The matrices of a checkpoint that are to be read otherwise.

    Args: config: what config.json holds.
    Raises: ModelError for rows that are not those of so many heads.
    """
    plan = Plan()
    if config.get("model_type") not in REARRANGED:
        return plan
    for name in stored.names:
        dtype, shape = stored.dtype(name), stored.shape(name)
        if dtype is None:
            continue
        if config["model_type"] == "gpt2" and name.endswith(_TRANSPOSED) and len(shape) == 2:
            read = partial(_transposed, stored, name, dtype)
            plan.add(Matrix(name, shape[::-1], None, (name,), read, dtype=dtype))
        key = next((key for part, key in _PAIRED.items() if part in name), None)
        if config["model_type"] == "cohere" and key is not None:
            order = pair_order(_heads(config, key), shape[0], name)
            plan.add(Matrix(name, shape, None, (name,), partial(_reordered, stored, name, dtype, order), dtype=dtype))
    return plan


def pair_order(num_heads: int, rows: int, name: str) -> NDArray[np.intp]:
    """Row of a file for each row of a graph: the pairs of a head lie side by side there, half a head apart here.

    Raises: WeightMismatch.
    """
    if rows % (2 * num_heads):
        raise WeightMismatch(f"tensor {short(name)} has {rows} rows, which are not pairs of {num_heads} heads")
    return np.arange(rows).reshape(num_heads, rows // num_heads // 2, 2).swapaxes(1, 2).reshape(-1)


def _heads(config: Mapping[str, Any], key: str) -> int:
    heads = config.get(key) or config.get("num_attention_heads")
    if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
        raise ModelError(f"config.json: {key}={short(heads)} must be a whole number of at least 1")
    return heads


def _numbers(stored: _Tensors, name: str, dtype: str) -> NDArray[np.generic]:
    numbers: NDArray[np.generic] = np.frombuffer(stored.buffer(name), _WORDS[dtype]).reshape(stored.shape(name))
    return numbers


def _transposed(stored: _Tensors, name: str, dtype: str) -> NDArray[np.generic]:
    return np.ascontiguousarray(_numbers(stored, name, dtype).T)


def _reordered(stored: _Tensors, name: str, dtype: str, order: NDArray[np.intp]) -> NDArray[np.generic]:
    return _numbers(stored, name, dtype)[order]
