"""What a tiny model that answers about pictures is, and parts that several have.

Used by tiny_sights.py and the families beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.models import load_architecture

#: Ids of a prompt, and its pictures as tiles [H, W, 3], normalized -> what transformers' model is given.
Inputs = Callable[[list[int], Mapping[str, int], list[np.ndarray]], dict[str, Any]]


@dataclass(frozen=True)
class Family:
    """A tiny model.

    Fields:
        class_name: of transformers. tokens: special ones, beside those of turns. mark: what the template writes for a
            picture.
        config: keys of config.json, given the ids of tokens.
        files: of the processor, by name.
        processor: of transformers, given a tokenizer; where it cannot be had, inputs.
        asked: of its generate(). mended: what is to be done to transformers' model first, and why it says.
    """

    class_name: str
    tokens: tuple[str, ...]
    mark: str
    config: Callable[[Mapping[str, int]], dict[str, Any]]
    files: Mapping[str, Any]
    processor: Callable[[Any], Any] | None = None
    inputs: Inputs | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    mended: Callable[[Any], None] | None = None


LLAMA = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rope_theta": 10000.0,
}
SIGLIP = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}


def text_of(name: str, **changes: Any) -> dict[str, Any]:
    tiny = {**load_architecture(name).tiny, "max_position_embeddings": 2048, **changes}
    return {key: value for key, value in tiny.items() if key != "architectures"}
