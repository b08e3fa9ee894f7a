"""The graph of a decoder of llama's kind: attention, or a state, and an FFN or experts in turn.

Called by the architecture files, which say where their layers differ. Does not know devices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Unpack

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.layers import (
    BEFORE_ATTENTION,
    LLAMA_ENDS,
    AttentionWays,
    Ends,
    Norms,
    attention_block,
    embedding,
    head,
    windows,
)
from albireo.models.blocks.rope import layer_ropes
from albireo.models.config import ModelConfig

#: x + what a layer's block makes of it, [T, E] float32.
Block = Callable[[GraphBuilder, ModelConfig, Value, int], Value]


def decoder(
    c: ModelConfig,
    max_model_len: int,
    *,
    ffn: Block = mlp_block,
    state: Block | None = None,
    ends: Ends = LLAMA_ENDS,
    norms: Norms = BEFORE_ATTENTION,
    **ways: Unpack[AttentionWays],
) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens.

    Args: ffn: what is behind attention. state: in place of attention in layers that keep a state. norms: around
        attention. ways: of attention, beside windows and rotations, which the config says.
    """
    b = GraphBuilder()
    seen, ropes, cached = windows(c, max_model_len), layer_ropes(c, max_model_len), set(c.cached_layers)
    x = embedding(b, c, ends)
    for layer in range(c.num_layers):
        if state is None or layer in cached:
            x = attention_block(b, c, x, layer, ropes[layer], norms=norms, window=seen[layer], **ways)
        else:
            x = state(b, c, x, layer)
        x = ffn(b, c, x, layer)
    return head(b, c, x, ends, c.blocks.has_head_bias)
