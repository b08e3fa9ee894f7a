"""Layers that norm what they have added up, as BERT's and RoBERTa's do, and what stands at their ends.

Called by the architecture files beside it. What is added is not rounded: x is float32, and what matrices read is x
rounded, so that a norm's result is both.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.models.config import ModelConfig
from albireo.models.layers import attention, linear, pooled_states, unrounded_norm
from albireo.models.rope import no_rotation


class Names(NamedTuple):
    """What a checkpoint calls the parts of a layer, behind its number."""

    layers: str
    q: str
    k: str
    v: str
    o: str
    attention_norm: str
    up: str
    down: str
    ffn_norm: str


def encoder(
    c: ModelConfig, prefix: str, names: Names, distances: Callable[[GraphBuilder, ModelConfig], Value] | None = None
) -> Graph:
    """The graph of such a model; its hidden states are those behind its last layer.

    Args: prefix: of embeddings. distances: makes what scores of all layers have added, see graph.ops.
    """
    b = GraphBuilder()
    x = _embeddings(b, c, prefix)
    near = None if distances is None else distances(b, c)
    for layer in range(c.num_layers):
        x = _layer(b, c, x, layer, f"{names.layers}.{layer}", names, near)
    return pooled_states(b, x)


def _embeddings(b: GraphBuilder, c: ModelConfig, prefix: str) -> Value:
    with b.part("embed"):
        x = b.embed(b.token_ids, b.weight(f"{prefix}.word_embeddings.weight", (c.vocab_size, c.hidden_size), c.dtype))
        if c.blocks.num_token_types:
            name = f"{prefix}.token_type_embeddings.weight"
            with b.part("types"):
                table = b.weight(name, (c.blocks.num_token_types, c.hidden_size), c.dtype)
                x = b.add(x, b.embed(b.token_types, table))
        with b.part("positions"):
            name, first = f"{prefix}.position_embeddings.weight", c.blocks.first_position
            rows = c.max_position_embeddings
            table = b.weight(name, (rows, c.hidden_size), c.dtype, segments=(RowSegment(name, first, first + rows),))
            x = b.add(x, b.embed(b.positions, table))
        return unrounded_norm(b, c, x, f"{prefix}.LayerNorm.weight")


def _layer(
    b: GraphBuilder, c: ModelConfig, x: Value, layer: int, name: str, names: Names, distances: Value | None
) -> Value:
    with b.part(f"layers.{layer}.attn"):
        h = b.cast(x, c.dtype)
        width = c.num_heads * c.head_dim
        parts = {
            p: linear(b, c, h, f"{name}.{called}", width, p, True, "heads")
            for p, called in (("q", names.q), ("k", names.k), ("v", names.v))
        }
        a = attention(b, c, parts, layer, no_rotation(c), None, distances=distances)
        o = linear(b, c, a, f"{name}.{names.o}", c.hidden_size, "o", True, "row")
        with b.part("o"):
            x = b.add(x, o)
        with b.part("norm"):
            x = unrounded_norm(b, c, x, f"{name}.{names.attention_norm}.weight")
    with b.part(f"layers.{layer}.mlp"):
        m = linear(b, c, b.cast(x, c.dtype), f"{name}.{names.up}", c.intermediate_size, "up", True, "ffn")
        with b.part("act"):
            m = b.cast(b.unary(m, c.hidden_act), c.dtype)
        down = linear(b, c, m, f"{name}.{names.down}", c.hidden_size, "down", True, "row")
        with b.part("down"):
            x = b.add(x, down)
        with b.part("norm"):
            return unrounded_norm(b, c, x, f"{name}.{names.ffn_norm}.weight")
