"""Layers that norm what they have added up, as BERT's, RoBERTa's and Nomic's do, and what stands at their ends.

Called by the architecture files beside it. What is added is not rounded: x is float32, and what matrices read is x
rounded, so that a norm's result is both.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.models.blocks.feed_forward import FFNNames, gated_mlp, plain_mlp
from albireo.models.blocks.layers import attention, linear, pooled_states, unrounded_norm
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.blocks.vocabulary_head import VocabularyHead, vocabulary_numbers
from albireo.models.config import ModelConfig

#: q, k and v: [T, H * D].
Parts = dict[str, Value]
#: What the output projection multiplies. Args: layer: of the KV cache; the name of the layer in the checkpoint.
Attend = Callable[[GraphBuilder, ModelConfig, Parts, int, str], Value]


class Names(NamedTuple):
    """What a checkpoint calls the parts of a layer, behind its number; gate empty: the FFN has none."""

    layers: str
    q: str
    k: str
    v: str
    o: str
    attention_norm: str
    up: str
    down: str
    ffn_norm: str
    gate: str = ""


def encoder(
    c: ModelConfig,
    max_model_len: int,
    *,
    names: Names,
    distances: Callable[[GraphBuilder, ModelConfig], Value] | None = None,
    rotates: bool = False,
    attend: Attend | None = None,
    widened: str = "",
    layer_names: Callable[[int], str] | None = None,
    vocabulary: VocabularyHead | None = None,
) -> Graph:
    """The graph of such a model, of texts of up to max_model_len tokens; its hidden states are those behind its last
    layer.

    Args: distances: makes what scores of all layers have added, see graph.ops. rotates: queries and keys are rotated.
        attend: attention, where it is another. widened: the linear that makes the residual stream of embeddings that
        are narrower. layer_names: of a layer, where its number does not tell. vocabulary: what is behind the layers of
        one whose embeddings are weights of the vocabulary.
    """
    b, rope = GraphBuilder(), rope_spec(c, max_model_len) if rotates else no_rotation(c)
    x = _embeddings(b, c, widened)
    near = None if distances is None else distances(b, c)

    def plain(b: GraphBuilder, c: ModelConfig, parts: Parts, layer: int, name: str) -> Value:
        return attention(b, c, parts, layer, rope, None, distances=near)

    for layer in range(c.num_layers):
        name = f"{names.layers}.{layer}" if layer_names is None else layer_names(layer)
        x = _layer(b, c, x, layer, name, names, attend or plain)
    if c.pooling is not None and c.pooling.vocabulary and vocabulary is not None:
        x = vocabulary_numbers(b, c, x, vocabulary)
    return pooled_states(b, x)


def _embeddings(b: GraphBuilder, c: ModelConfig, widened: str) -> Value:
    width = c.blocks.embedding_width or c.hidden_size
    with b.part("embed"):
        x = b.embed(b.token_ids, b.weight("embeddings.word_embeddings.weight", (c.vocab_size, width), c.dtype))
        if c.blocks.num_token_types:
            name = "embeddings.token_type_embeddings.weight"
            with b.part("types"):
                x = b.add(x, b.embed(b.token_types, b.weight(name, (c.blocks.num_token_types, width), c.dtype)))
        if c.blocks.num_tasks:  # whatever type a token has, it is the first row; the others are read by none
            name, types = "embeddings.task_type_embeddings.weight", c.blocks.num_token_types
            each = (*(RowSegment(name, 0, 1),) * types, RowSegment(name, 0, c.blocks.num_tasks))
            with b.part("task"):
                table = b.weight(f"{name}.by_type", (types + c.blocks.num_tasks, width), c.dtype, segments=each)
                x = b.add(x, b.embed(b.token_types, table))
        if c.blocks.has_positions:
            with b.part("positions"):
                name, first = "embeddings.position_embeddings.weight", c.blocks.first_position
                rows = c.max_position_embeddings
                of_text = (RowSegment(name, first, first + rows),)
                x = b.add(x, b.embed(b.positions, b.weight(name, (rows, width), c.dtype, segments=of_text)))
        x = unrounded_norm(b, replace(c, hidden_size=width), x, "embeddings.LayerNorm.weight")
        if not c.blocks.embedding_width:
            return x
        return linear(b, c, b.cast(x, c.dtype), widened, c.hidden_size, "widened", True, None)


def _layer(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    layer: int,
    name: str,
    names: Names,
    attend: Attend,
) -> Value:
    with b.part(f"layers.{layer}.attn"):
        h = b.cast(x, c.dtype)
        width = c.num_heads * c.head_dim
        parts = {
            p: linear(b, c, h, f"{name}.{called}", width, p, c.blocks.qkv_bias, "heads")
            for p, called in (("q", names.q), ("k", names.k), ("v", names.v))
        }
        a = attend(b, c, parts, layer, name)
        o = linear(b, c, a, f"{name}.{names.o}", c.hidden_size, "o", c.blocks.o_bias, "row")
        with b.part("o"):
            x = b.add(x, o)
        with b.part("norm"):
            x = unrounded_norm(b, c, x, f"{name}.{names.attention_norm}.weight")
    with b.part(f"layers.{layer}.mlp"):
        down = _ffn(b, c, b.cast(x, c.dtype), name, names)
        with b.part("down"):
            x = b.add(x, down)
        with b.part("norm"):
            return unrounded_norm(b, c, x, f"{name}.{names.ffn_norm}.weight")


def _ffn(b: GraphBuilder, c: ModelConfig, h: Value, name: str, names: Names) -> Value:
    """Of one with a gate the last linear alone may have a bias."""
    if not names.gate:
        return plain_mlp(b, c, h, name, c.intermediate_size, bias=c.blocks.ffn_bias, up=names.up, down=names.down)
    called = FFNNames(gate=names.gate, up=names.up, down=names.down)
    return gated_mlp(b, c, h, name, c.intermediate_size, names=called, down_bias=c.blocks.ffn_bias)
