"""Models that find pages: they read pictures as those that answer about them do, and give a vector of each token, which
a linear behind the text part makes.

Called by text_part.py and opening.py. Does not know what parts compute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.json_file import keys

#: By model_type: that of what reads, and its class.
_READERS = {
    "colqwen2": ("qwen2_vl", "Qwen2VLForConditionalGeneration"),
    "colqwen3": ("qwen3_vl", "Qwen3VLForConditionalGeneration"),
    "ops_colqwen3": ("qwen3_vl", "Qwen3VLForConditionalGeneration"),
}
#: Where some have all of what reads.
_PART = "vlm_config"
#: How wide a vector is, which the linear's weight says.
_WIDTHS = keys("embedding_dim embed_dim dims dim")
#: The linear, as it is called here, and what a class of a text part ends with that it is behind.
HEAD, CLASS_END = "embedding_proj_layer", "ForRetrieval"


def is_retriever(data: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of one."""
    return data.get("model_type") in _READERS


def reader_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json would hold of a model that answers about what this one reads."""
    part, (model_type, class_name) = data.get(_PART), _READERS[str(data["model_type"])]
    left_out = {_PART, *_WIDTHS}
    # sizes that transformers repeats for others
    found = dict(part) if isinstance(part, Mapping) else {key: data[key] for key in data if key not in left_out}
    for key in ("dtype", "torch_dtype"):
        if data.get(key) is not None:
            found[key] = data[key]
    return {**found, "model_type": model_type, "architectures": [class_name]}
