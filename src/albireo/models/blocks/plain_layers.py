"""Layers of models with a LayerNorm, with or without a gate in the FFN, attention and FFN in turn or side by side.

Called by the architecture files. What a layer has is in config.blocks (block_settings.py), what a checkpoint calls it
in Names. Uses the parts of layers.py, whose rounding points these have, too.
"""

from __future__ import annotations

from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.graph.ops import RopeSpec
from albireo.models.blocks.feed_forward import FFNNames, gated_mlp, plain_mlp
from albireo.models.blocks.head_rows import RowsOf, RowsOfSeveral, rows_of_head_norm, rows_of_norms
from albireo.models.blocks.layers import (
    LLAMA_ENDS,
    Ends,
    attention,
    embedding,
    head,
    limited,
    linear,
    norm,
    queries_keys_values,
    unrounded_norm,
    windows,
)
from albireo.models.blocks.rope import no_rotation, rope_spec
from albireo.models.config import ModelConfig


class Names(NamedTuple):
    """What a checkpoint calls the parts of a layer.

    Fields: layers: what the number of a layer comes behind. o, up, down: modules behind attention's and the FFN's name;
    up None: the FFN has a gate, and names of llama's. gate: of one that has others. joined: as in
    layers.attention_block; joined_ffn: likewise, of gate and up. query: the module of queries, where what is joined are
    keys and values alone. head_norm: of a part's heads, where they are normed; per_head: a module of each lies in it.
    """

    layers: str = "model.layers"
    attention: str = "self_attn"
    o: str = "o_proj"
    mlp: str = "mlp"
    up: str | None = None
    down: str = "down_proj"
    attention_norm: str = "input_layernorm"
    ffn_norm: str = "post_attention_layernorm"
    joined: str | None = None
    joined_ffn: str | None = None
    query: str = ""
    gate: str = ""
    head_norm: str = "{}_norm"
    per_head: bool = False


LLAMA_NAMES = Names()


class Positions(NamedTuple):
    """A table whose rows are added to embeddings. Fields: offset: its row of position 0."""

    table: str
    offset: int = 0


def decoder(
    c: ModelConfig,
    max_model_len: int,
    names: Names = LLAMA_NAMES,
    ends: Ends = LLAMA_ENDS,
    *,
    positions: Positions | None = None,
    has_head_bias: bool = False,
    embedding_norm: str = "",
) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens.

    Args: embedding_norm: what embeddings are normed by; empty: they are not.
    """
    b, x = hidden_states(c, max_model_len, names, ends, positions, embedding_norm)
    return head(b, c, x, ends, has_head_bias)


def hidden_states(
    c: ModelConfig,
    max_model_len: int,
    names: Names,
    ends: Ends,
    positions: Positions | None = None,
    embedding_norm: str = "",
) -> tuple[GraphBuilder, Value]:
    """What builds the graph, and the residual stream behind its last layer. Args: see decoder()."""
    b = GraphBuilder()
    x = embedding(b, c, ends)
    if embedding_norm:
        with b.part("embed"):
            x = unrounded_norm(b, c, x, f"{embedding_norm}.weight")
    if positions is not None:
        x = _with_positions(b, c, x, positions)
    still = no_rotation(c)
    turning = rope_spec(c, max_model_len) if positions is None else still
    of_windows = turning if c.local_rope is None else rope_spec(c, max_model_len, is_local=True)
    for layer, window in enumerate(windows(c, max_model_len)):
        rope = turning if c.windows[layer] is None else of_windows
        x = _layer(b, c, x, layer, rope if c.rotates[layer] else still, window, names)
    return b, x


def _with_positions(b: GraphBuilder, c: ModelConfig, x: Value, positions: Positions) -> Value:
    """Every token's position is below max_model_len, which max_position_embeddings limits: rows of the table."""
    first, count = positions.offset, c.max_position_embeddings
    with b.part("positions"):
        segments = (RowSegment(positions.table, first, first + count),)
        table = b.weight(positions.table, (count, c.hidden_size), c.dtype, segments=segments)
        return b.add(x, b.embed(b.positions, table))


def _layer(
    b: GraphBuilder, c: ModelConfig, x: Value, layer: int, rope: RopeSpec, window: int | None, names: Names
) -> Value:
    """[T, E] float32. Side by side, both norms are computed before either block is added to what they read; the FFN's
    first, so that attention's is read by the call behind it."""
    name, is_parallel = f"{names.layers}.{layer}", c.blocks.is_parallel
    own = None
    if is_parallel and c.blocks.has_ffn_norm:
        with b.part(f"layers.{layer}.mlp"):
            own = norm(b, c, x, f"{name}.{names.ffn_norm}.weight", "norm")
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"{name}.{names.attention_norm}.weight", "norm")
        of = f"{name}.{names.attention}"
        joined, bias = names.joined, c.blocks.qkv_bias
        parts = limited(b, c, queries_keys_values(b, c, h, of, bias=bias, joined=joined, query=names.query))
        if c.blocks.has_qk_norm:
            parts |= {p: _heads_normed(b, c, parts[p], p, of, names) for p in "qk"}
        a = attention(b, c, parts, layer, rope, window)
        o = linear(b, c, a, f"{of}.{names.o}", c.hidden_size, "o", c.blocks.o_bias, "row")
        with b.part("o"):
            x = b.add(x, o)
    with b.part(f"layers.{layer}.mlp"):
        if not is_parallel:
            h = norm(b, c, x, f"{name}.{names.ffn_norm}.weight", "norm")
        down = _ffn(b, c, own or h, f"{name}.{names.mlp}", names)
        with b.part("down"):
            return b.add(x, down)


def _heads_normed(b: GraphBuilder, c: ModelConfig, x: Value, part: str, of: str, names: Names) -> Value:
    """Each head of q or k minus its mean, over its length, times numbers of its own, [T, heads * D] float32."""
    heads, module = c.num_heads if part == "q" else c.num_kv_heads, f"{of}.{names.head_norm.format(part)}"
    rows: RowsOf | RowsOfSeveral = rows_of_head_norm(c, module, heads)
    if names.per_head:
        rows = rows_of_norms(c, [f"{module}.norms.{i}" for i in range(heads)])
    with b.part(part):
        segments = rows.segments("weight")
        weight = b.weight(f"{module}.weight", (heads * c.head_dim,), "float32", segments=segments)
        return b.layer_norm(x, weight, None, c.rms_norm_eps, num_heads=heads)


def _ffn(b: GraphBuilder, c: ModelConfig, h: Value, name: str, names: Names) -> Value:
    """down(act(up(h))), or with a gate, [T, E] float32."""
    bias, name = c.blocks.ffn_bias, name.removesuffix(".")
    if names.up is None:
        of_ffn = FFNNames(down=names.down)
        return gated_mlp(b, c, h, name, c.intermediate_size, bias=bias, joined=names.joined_ffn, names=of_ffn)
    if names.gate:
        of_ffn, ends = FFNNames(gate=names.gate, up=names.up, down=names.down), c.blocks.down_bias
        return gated_mlp(b, c, h, name, c.intermediate_size, bias=bias, down_bias=ends, names=of_ffn)
    return plain_mlp(b, c, h, name, c.intermediate_size, bias=bias, up=names.up, down=names.down)
