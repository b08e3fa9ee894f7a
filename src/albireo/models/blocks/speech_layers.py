"""What decoders that listen have in common: attention to a part of the positions, and what a sound leaves behind.

Of a sequence the first positions are a sound's, see whisper.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.layers import linear, pooled_states
from albireo.models.config import ModelConfig


def seen_text(
    b: GraphBuilder, c: ModelConfig, x: Value, q: Value, layer: int, name: str, *, has_bias: bool = True
) -> Value:
    """x, and what attention to the text so far gives of q. Args: name: of the linear behind."""
    return _added(b, c, x, q, layer, name, has_bias, {"first_key": c.blocks.sound_positions})


def heard_sound(
    b: GraphBuilder, c: ModelConfig, x: Value, q: Value, layer: int, name: str, *, has_bias: bool = True
) -> Value:
    """x, and what attention to the sound gives of q. Args: name: of the linear behind."""
    return _added(b, c, x, q, layer, name, has_bias, {"num_keys": c.blocks.sound_positions})


def left_by_sound(c: ModelConfig, name: Callable[[int, str], str], *, biases: str) -> Graph:
    """What a sound leaves in the KV layers: rows [S, E] that the encoder gives, zeros behind -> keys and values of
    cross attention. Output: hidden, of no rows.

    Args: name: layer and "k" or "v" -> of the linear. biases: which of the two have one.
    """
    b = GraphBuilder()
    x = b.given(c.hidden_size, 0)
    for layer in range(c.num_layers):
        with b.part(f"layers.{layer}.cross"):
            h = b.cast(x, c.dtype)
            k, v = (linear(b, c, h, name(layer, p), c.hidden_size, p, p in biases, "heads") for p in "kv")
            with b.part("kv"):
                b.kv_write(k, v, layer, c.num_heads, c.head_dim)
    return pooled_states(b, x)


def _added(
    b: GraphBuilder, c: ModelConfig, x: Value, q: Value, layer: int, name: str, has_bias: bool, seen: dict[str, Any]
) -> Value:
    """Args: seen: which positions; see graph.ops."""
    with b.part("attention"):
        a = b.attention(
            b.cast(q, c.dtype),
            layer=layer,
            num_heads=c.num_heads,
            num_kv_heads=c.num_heads,
            head_dim=c.head_dim,
            scale=c.scale,
            window=None,
            softcap=None,
            **seen,
        )
        a = b.cast(a, c.dtype)
    o = linear(b, c, a, name, c.hidden_size, "o", has_bias, "row")
    with b.part("o"):
        return b.add(x, o)
