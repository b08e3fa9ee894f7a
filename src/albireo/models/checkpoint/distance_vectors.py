"""Vectors of distances that DeBERTa multiplies with queries and keys: linears of rows of a table, the same for every
text, so they are computed as the checkpoint is read.

Called by rearranged.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.models.checkpoint.safetensors_files import SafetensorsFiles
from albireo.models.checkpoint.text_tensors import TextTensors
from albireo.quantization.formats.matrix import Matrix, Plan

_Tensors = SafetensorsFiles | TextTensors
#: What is made, [heads * vectors, head_dim]: to be multiplied with queries, and with keys; and the linears they are of,
#: where they are those of content and where they have their own.
OF_QUERIES, OF_KEYS = "near", "near_keys"
_SHARED = {OF_QUERIES: "key_proj", OF_KEYS: "query_proj"}
_OWN = {OF_QUERIES: "pos_key_proj", OF_KEYS: "pos_query_proj"}
_TABLE, _NORM = "encoder.rel_embeddings.weight", "encoder.LayerNorm"
_CONTENT = ".attention.self.query_proj.weight"


def distance_vectors(stored: _Tensors, config: Mapping[str, Any]) -> Plan:
    """The vectors of every layer. Args: config: what config.json holds."""
    plan, heads = Plan(), config.get("num_attention_heads")
    if _TABLE not in stored or not isinstance(heads, int) or heads < 1:
        return plan
    norm = (f"{_NORM}.weight", f"{_NORM}.bias") if "layer_norm" in str(config.get("norm_rel_ebd")) else ()
    linears = _SHARED if config.get("share_att_key") else _OWN
    count = stored.shape(_TABLE)[0]
    for name in stored.names:
        if not name.endswith(_CONTENT):
            continue
        block = name.removesuffix(".query_proj.weight")
        for made, linear in linears.items():
            own = (f"{block}.{linear}.weight", f"{block}.{linear}.bias")
            if any(each not in stored for each in (*own, *norm)) or stored.shape(own[0])[0] % heads:
                continue
            read = partial(_vectors, stored, own, norm, float(config.get("layer_norm_eps", 1e-7)), heads)
            # linears of content are weights by themselves
            used = (_TABLE, *norm, *(own if linears is _OWN else ()))
            shape = (heads * count, stored.shape(own[0])[0] // heads)
            plan.add(Matrix(f"{block}.{made}.weight", shape, None, used, read))
    return plan


def _vectors(
    stored: _Tensors, linear: tuple[str, ...], norm: tuple[str, ...], eps: float, heads: int
) -> NDArray[np.generic]:
    """Of each head its vectors, one below the other, float32."""
    rows = _numbers(stored, _TABLE)
    if norm:
        rows = rows - rows.mean(axis=-1, keepdims=True)
        rows = rows / np.sqrt((rows * rows).mean(axis=-1, keepdims=True) + eps)
        rows = rows * _numbers(stored, norm[0]) + _numbers(stored, norm[1])
    vectors = rows @ _numbers(stored, linear[0]).T + _numbers(stored, linear[1])
    of_heads = vectors.reshape(len(rows), heads, -1).transpose(1, 0, 2)
    return np.ascontiguousarray(of_heads.reshape(-1, of_heads.shape[-1]), np.float32)


def _numbers(stored: _Tensors, name: str) -> NDArray[np.float64]:
    return stored.tensor(name).to_float32().astype(np.float64)
