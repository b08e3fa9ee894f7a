"""Layers of a Q-Former as graph-building functions: rows that ask see each other, then what they ask about.

Called by the families. Rows of a window lie in front of those that ask of it: in layer 0 of the KV cache either are a
sequence, in layer 1 both are one, of which the first are seen. What is made of rows that do not ask, nobody reads.
Source: Li et al. 2023, BLIP-2.
"""

from __future__ import annotations

from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.blocks.feed_forward import activated
from albireo.models.vision.encoder import EncoderSettings, linear, norm, seen_by


def q_former_layer(
    b: GraphBuilder, c: EncoderSettings, x: Value, source: Value, name: str, number: int, num_keys: int
) -> Value:
    """x behind one layer. Args: source: rows that are seen. name: of layers. num_keys: of them, in each sequence; 0:
    this layer sees none."""
    name = f"{name}.{number}"
    with b.part(f"layers.{number}.attn"):
        x = _block(b, c, x, x, f"{name}.attention", 0, both_ways=True)
    if num_keys:
        with b.part(f"layers.{number}.cross"):
            x = _block(b, c, x, source, f"{name}.crossattention", 1, num_keys=num_keys)
    with b.part(f"layers.{number}.mlp"):
        m = linear(b, c, x, f"{name}.intermediate_query.dense", c.intermediate_size, "up")
        with b.part("act"):
            m = activated(b, m, c.act)
        return _normed(b, c, x, m, f"{name}.output_query")


def _block(
    b: GraphBuilder, c: EncoderSettings, x: Value, source: Value, name: str, kv_layer: int, **positions: Any
) -> Value:
    """x and what attention gives of it, normed. Args: source: whose keys and values are seen."""
    of = f"{name}.attention"
    q = linear(b, c, x, f"{of}.query", c.hidden_size, "q")
    k, v = (linear(b, c, source, f"{of}.{name}", c.hidden_size, name[0]) for name in ("key", "value"))
    with b.part("kv"):
        b.kv_write(k, v, kv_layer, c.num_heads, c.head_dim)
    with b.part("attention"):
        a = seen_by(b, c, q, kv_layer, **positions)
    return _normed(b, c, x, a, f"{name}.output")


def _normed(b: GraphBuilder, c: EncoderSettings, x: Value, y: Value, name: str) -> Value:
    dense = linear(b, c, y, f"{name}.dense", c.hidden_size, "o")
    with b.part("o"):
        return norm(b, c, b.add(x, dense), f"{name}.LayerNorm")
