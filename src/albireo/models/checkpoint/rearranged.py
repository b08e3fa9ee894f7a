"""Matrices that some checkpoints hold otherwise than graphs read them: those of GPT-2's layers are [in, out]; of OLMo
Hybrid's the convolutions of queries, keys and values lie in three tensors, one below the other whatever rows each has,
and norms have other names; of some encoders linears lie in one tensor, see joined_linears.py, and vectors of
distances are made, see distance_vectors.py; of Voxtral Realtime norms are, see delayed_norms.py.

Called by weights.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.models.checkpoint.delayed_norms import delayed_norms
from albireo.models.checkpoint.distance_vectors import distance_vectors
from albireo.models.checkpoint.joined_linears import HRM, apart
from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.task_adapters import is_jina
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

#: Architectures that this file knows.
REARRANGED = ("gpt2", "jais", "openai-gpt", "olmo_hybrid", "deberta-v2", "voxtral_realtime")
_FIRST_NAMED = ("nomic_bert", "gte", "new", "jina_embeddings_v3", HRM)
_TRANSPOSED = tuple(
    f".{module}.weight" for module in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_fc2", "mlp.c_proj")
)
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}

#: Of OLMo Hybrid: what names end with in files, and here.
_NORMS = {
    ".attention_layer_norm.weight": ".input_layernorm.weight",
    ".feedforward_layer_norm.weight": ".post_attention_layernorm.weight",
}
_FIRST_CONV = ".linear_attn.q_conv1d.weight"

_Tensors = SafetensorsFiles | TextTensors


def rearranged(stored: _Tensors, config: Mapping[str, Any]) -> Plan:
    """The matrices of a checkpoint that are to be read otherwise. Args: config: what config.json holds."""
    plan = Plan()
    if config.get("model_type") in _FIRST_NAMED or is_jina(config):
        return apart(stored, config)
    if config.get("model_type") not in REARRANGED:
        return plan
    if config["model_type"] == "olmo_hybrid":
        return _of_olmo(stored)
    if config["model_type"] == "voxtral_realtime":
        return delayed_norms(stored, config)
    if config["model_type"] == "deberta-v2":
        return distance_vectors(stored, config)
    for name in stored.names:
        dtype, shape = stored.dtype(name), stored.shape(name)
        if dtype is not None and name.endswith(_TRANSPOSED) and len(shape) == 2:
            read = partial(_transposed, stored, name, dtype)
            plan.add(Matrix(name, shape[::-1], None, (name,), read, dtype=dtype))
    return plan


def _transposed(stored: _Tensors, name: str, dtype: str) -> NDArray[np.generic]:
    numbers: NDArray[np.generic] = np.frombuffer(stored.buffer(name), _WORDS[dtype]).reshape(stored.shape(name))
    return np.ascontiguousarray(numbers.T)


def _of_olmo(stored: _Tensors) -> Plan:
    plan = Plan()
    for name in stored.names:
        dtype, shape = stored.dtype(name), stored.shape(name)
        end = next((end for end in _NORMS if name.endswith(end)), None)
        if dtype is None:
            continue
        if end is not None:
            read = partial(_numbers, stored, (name,), dtype)
            plan.add(Matrix(name.removesuffix(end) + _NORMS[end], shape, None, (name,), read, dtype=dtype))
        elif name.endswith(".linear_attn.conv1d.weight") and len(shape) == 3:
            read = partial(_numbers, stored, (name,), dtype)
            plan.add(Matrix(name, (shape[0], shape[2]), None, (name,), read, dtype=dtype))
        elif name.endswith(_FIRST_CONV):
            names = tuple(f"{name.removesuffix(_FIRST_CONV)}.linear_attn.{part}_conv1d.weight" for part in "qkv")
            if all(each in stored and stored.dtype(each) == dtype and len(stored.shape(each)) == 3 for each in names):
                rows, width = sum(stored.shape(each)[0] for each in names), shape[2]
                whole = name.replace("q_conv1d", "conv1d")
                plan.add(
                    Matrix(whole, (rows, width), None, names, partial(_numbers, stored, names, dtype), dtype=dtype)
                )
    return plan


def _numbers(stored: _Tensors, names: tuple[str, ...], dtype: str) -> NDArray[np.generic]:
    """Of tensors, one below the other, without dims of one in the middle."""
    parts: list[NDArray[np.generic]] = [np.frombuffer(stored.buffer(name), _WORDS[dtype]) for name in names]
    shape = stored.shape(names[0])
    whole = np.concatenate(parts)
    return whole.reshape(-1, shape[-1]) if len(shape) > 1 else whole
