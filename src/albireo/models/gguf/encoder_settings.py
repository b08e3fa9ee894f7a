"""Settings of a GGUF file of a model that embeds, as the keys that its config.json has.

Named by the tables. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.stored import MAX, Stored

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


def modernbert(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    """ModernBERT; layers with a window rotate by a base of their own."""
    act, layers = fields.text("hidden_activation", "gelu"), config["num_hidden_layers"]
    if act != "gelu":
        fields.unsupported("hidden_activation", act, "supported: gelu")
    local = fields.number("rope.freq_base_swa", 1.0, 1e15, default=10000.0)
    bases = {"full_attention": config["rope_parameters"]["rope_theta"], "sliding_attention": local}
    return {
        "rope_parameters": {kind: {"rope_type": "default", "rope_theta": base} for kind, base in bases.items()},
        "partial_rotary_factor": None,
        "num_key_value_heads": None,
        "head_dim": None,
        "hidden_activation": act,
        "local_attention": fields.integer("attention.sliding_window", 1, MAX),
        "global_attn_every_n_layers": fields.integer(
            "attention.sliding_window_pattern", 1, layers, default=min(3, layers)
        ),
    }
