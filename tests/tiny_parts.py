"""Parts of checkpoints that many families have: names of tensors and their shapes, apart from albireo.models.

Used by the tables of tiny_models.py. Weights are drawn in the order in which names stand here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Shapes = dict[str, tuple[int, ...]]

#: What the matrices of an FFN are called: gate, up and down.
LLAMA, MIXTRAL = ("gate_proj", "up_proj", "down_proj"), ("w1", "w3", "w2")


def words(text: str) -> tuple[str, ...]:
    """Names with blanks between them."""
    return tuple(text.split())


def module(name: str, shape: tuple[int, ...], has_bias: bool) -> Shapes:
    """A module's weight and bias."""
    found: Shapes = {f"{name}.weight": shape}
    return found | ({f"{name}.bias": shape[:1]} if has_bias else {})


def gated(name: str, width: int, hidden: int, parts: tuple[str, str, str] = LLAMA) -> Shapes:
    """An FFN with a gate."""
    gate, up, down = (f"{name}.{part}.weight" for part in parts)
    return {gate: (width, hidden), up: (width, hidden), down: (hidden, width)}


def experts(name: str, count: int, width: int, hidden: int, parts: tuple[str, str, str] = LLAMA) -> Shapes:
    """Such FFNs, numbered."""
    found = Shapes()
    for expert in range(count):
        found |= gated(f"{name}.{expert}", width, hidden, parts)
    return found


def below(name: str, shapes: Shapes) -> Shapes:
    """The same, of a module of that name."""
    return {f"{name}.{each}": shape for each, shape in shapes.items()}


def ended(c: Mapping[str, Any], shapes: Shapes, norm: str = "model.norm") -> Shapes:
    """Behind layers the last norm, and a head where the table is none."""
    head: Shapes = {} if c["tie_word_embeddings"] else {"lm_head.weight": (c["vocab_size"], c["hidden_size"])}
    return {**shapes, f"{norm}.weight": (c["hidden_size"],), **head}


def whole(c: Mapping[str, Any], layers: Shapes, norm: str = "model.norm") -> Shapes:
    """Layers between a table and a head."""
    return ended(c, {"model.embed_tokens.weight": (c["vocab_size"], c["hidden_size"]), **layers}, norm)


def in_layers(layers: Iterable[Shapes], name: str = "model.layers") -> Shapes:
    """What each layer has, in order."""
    return {f"{name}.{i}.{each}": shape for i, layer in enumerate(layers) for each, shape in layer.items()}
