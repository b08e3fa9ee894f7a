"""What a tiny model that reads pictures is, and parts that several have.

Used by tiny_towers.py and the families beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from albireo.models import load_architecture

LLAMA = {
    "model_type": "llama",
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 99,
    "pad_token_id": 0,
}
# heads of 72, as of SigLIP so400m
SIGLIP = {
    "hidden_size": 144,
    "intermediate_size": 200,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 96,
    "patch_size": 8,
}


@dataclass(frozen=True)
class Family:
    """A tiny model.

    Fields: class_name: of transformers. tiles: sizes in pixels of what it may be given. rows: (model, tile as a tensor
    [H, W, 3] of the compute type) -> what transformers puts in place of embeddings. text: keys of the text part; empty:
    they are among those of the whole, whole. max_patches: of the largest of tiles, or more.
    """

    class_name: str
    tiles: tuple[tuple[int, int], ...]
    rows: Callable[[Any, Any], Any]
    vision: Mapping[str, Any]
    text: Mapping[str, Any] = field(default_factory=lambda: LLAMA)
    whole: Mapping[str, Any] = field(default_factory=dict)
    max_patches: int = 160


def patches_of(tile: Any, size: int, merge: int = 1) -> Any:
    """[rows / merge, columns / merge, merge, merge, size, size, 3] of a tile."""
    height, width, _ = tile.shape
    cut = tile.reshape(height // size // merge, merge, size, width // size // merge, merge, size, 3)
    return cut.permute(0, 3, 1, 4, 2, 5, 6)


def text_of(name: str) -> dict[str, Any]:
    """Of a text part that is refused without its own keys."""
    return {**load_architecture(name).tiny, "hidden_size": 48}
