"""Settings of a GGUF file of Gemma 3n, as the keys that its config.json has.

Named by the tables. Does not know what models compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any

from albireo.json_file import Fields
from albireo.models.gguf.own_settings import layer_types
from albireo.models.gguf.stored import MAX, Stored, optional_scale, rows_of, window_of


def gemma3n(fields: Fields, file: Stored, config: Mapping[str, Any]) -> dict[str, Any]:
    layers = config["num_hidden_layers"]
    return {
        **layer_types(fields, config, 5),
        "sliding_window": window_of(fields),
        "rope_local_base_freq": fields.number("rope.freq_base_swa", 1.0, 1e15, default=10000.0),
        "final_logit_softcapping": optional_scale(fields, "final_logit_softcapping"),
        "num_kv_shared_layers": fields.integer("attention.shared_kv_layers", 0, layers, default=0),
        "hidden_size_per_layer_input": fields.integer("embedding_length_per_layer_input", 1, MAX),
        "vocab_size_per_layer_input": file.shape("model.embed_tokens_per_layer.weight")[0],
        "altup_num_inputs": fields.integer("altup.num_inputs", 1, MAX),
        "altup_active_idx": fields.integer("altup.active_idx", 0, MAX, default=0),
        "laurel_rank": rows_of(file, ".laurel.linear_left.weight"),
        "activation_sparsity_pattern": _sparsity(fields, layers),
    }


def _sparsity(fields: Fields, layers: int) -> list[float]:
    """Of each layer: what part of its gates is cut. The file has how many deviations above the mean the cut is, and
    -inf where there is none. Raises: ModelError for anything else."""
    key = "activation_sparsity_scale"
    given = fields.raw(key)
    scales = given if isinstance(given, list) else [given] * layers
    if len(scales) != layers or not all(isinstance(each, float) and each < 5 for each in scales):
        fields.fail(key, given, f"must be a number below 5, or one for each of {layers} layers")
    return [NormalDist().cdf(each) for each in scales]
