"""Settings of a GGUF file of a model that embeds, as the keys that its config.json has.

Named by the table of architectures.py. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.stored import Stored

#: llama_pooling_type.
_NONE, _MEAN, _CLS, _LAST = range(4)
_POOLING = {_MEAN: "mean", _CLS: "cls", _LAST: "last"}
_TYPES = "embeddings.token_type_embeddings.weight"


def pooling(fields: Fields, writes_text: bool) -> dict[str, Any]:
    """How texts are pooled where nobody says. Raises: UnsupportedModel for what ranks, and for a model that writes text
    another than the last token's."""
    kind = fields.raw("pooling_type")
    if kind in (None, _NONE):
        return {}
    if kind not in _POOLING or (writes_text and kind != _LAST):
        known = "3 (the last token)" if writes_text else "1, 2, 3 (mean, first, last token)"
        fields.unsupported("pooling_type", kind, f"supported: {known}")
    return {} if writes_text else {"pooling_type": _POOLING[kind]}


def bert(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """Also RoBERTa and its like, whose first position is that of the table here."""
    return {
        "rope_parameters": None,
        "partial_rotary_factor": None,
        "num_key_value_heads": None,
        "head_dim": None,
        "type_vocab_size": file.shape(_TYPES)[0] if _TYPES in file else 0,
        "hidden_act": "gelu",
    }


def nomic(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    every = fields.integer("moe_every_n_layers", 0, 2**16, default=0)
    if every:
        fields.unsupported("moe_every_n_layers", every, "supported: 0")
    own = bert(fields, file, config)
    return {**own, "rope_parameters": config["rope_parameters"], "hidden_act": "silu"}
