"""Encoders as they were first published, with code of their own and before transformers had their classes: tensors by
the names of those classes, and q, k and v, or what an FFN is made of, apart where they lie in one.

Called by text_tensors.py and weights.py. Does not know graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from albireo.quantization.formats.matrix import Matrix, Plan, StoredTensors

#: Of nomic-embed-text and jina-embeddings-v3, which are told by the norm of their embeddings.
_FLASH = {
    "emb_ln.": "embeddings.LayerNorm.",
    "encoder.layers.": "layers.",
    ".attn.Wqkv.": ".self_attn.qkv_proj.",
    ".attn.out_proj.": ".self_attn.o_proj.",
    ".mixer.Wqkv.": ".self_attn.qkv_proj.",
    ".mixer.out_proj.": ".self_attn.o_proj.",
    ".norm1.": ".post_attention_layernorm.",
    ".norm2.": ".post_mlp_layernorm.",
}
#: Of FFNs with a gate among these.
_GATED = {".mlp.fc11.": ".mlp.up_proj.", ".mlp.fc12.": ".mlp.gate_proj.", ".mlp.fc2.": ".mlp.down_proj."}
#: Of gte.
_GTE = {
    "encoder.layer.": "layers.",
    ".attention.qkv_proj.": ".self_attn.qkv_proj.",
    ".attention.o_proj.": ".self_attn.o_proj.",
    ".attn_ln.": ".post_attention_layernorm.",
    ".mlp_ln.": ".post_mlp_layernorm.",
}
#: What holds the rows of several linears, one below the other, each with as many.
_JOINED = {
    ".self_attn.qkv_proj.": (".self_attn.q_proj.", ".self_attn.k_proj.", ".self_attn.v_proj."),
    ".mlp.up_gate_proj.": (".mlp.up_proj.", ".mlp.gate_proj."),
}
_WORDS = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}


def renames(names: Iterable[str]) -> Mapping[str, str]:
    """Parts of names -> what they are here; empty: names are those of transformers. Args: names: of all tensors."""
    found = tuple(names)
    if not any(name.endswith("embeddings.word_embeddings.weight") for name in found):
        return {}
    if any(name.endswith("emb_ln.weight") for name in found):
        return {**_FLASH, **(_GATED if any(".mlp.fc11." in name for name in found) else {})}
    return _GTE if any(".0.attention.qkv_proj." in name for name in found) else {}


def apart(stored: StoredTensors, dtypes: Mapping[str, str | None]) -> Plan:
    """The linears of an encoder that lie in one tensor. Args: dtypes: of tensors, where they are numbers."""
    plan = Plan()
    for name in stored.names:
        parts = next((parts for joined, parts in _JOINED.items() if joined in name), ())
        dtype, shape = dtypes.get(name), stored.shape(name)
        if dtype is None or not parts or shape[0] % len(parts):
            continue
        joined, rows = next(joined for joined in _JOINED if joined in name), shape[0] // len(parts)
        for place, part in enumerate(parts):
            read = partial(_rows, stored, name, dtype, place * rows, rows)
            plan.add(Matrix(name.replace(joined, part), (rows, *shape[1:]), None, (name,), read, dtype=dtype))
    return plan


def _rows(stored: StoredTensors, name: str, dtype: str, first: int, count: int) -> NDArray[np.generic]:
    numbers: NDArray[np.generic] = np.frombuffer(stored.buffer(name), _WORDS[dtype])
    return numbers.reshape(stored.shape(name))[first : first + count]
