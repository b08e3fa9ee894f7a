"""Attention to a window of positions, and to entries that are made of several positions each (DeepSeek V4), as
graph-building functions; and what config.json says of it.

Called by the architecture files. One KV head, whose values are its keys. A layer has a KV cache of positions, of which
rows see a window; a cache of entries, of which rows see those whose last position is not behind their own; and where
those may be many, a cache of keys by which each row chooses some. What both attentions have summed becomes one, with a
score more of each head. Values were rotated as keys, so results are rotated back. Source: DeepSeek-AI 2026,
DeepSeek-V4.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from albireo.errors import short
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields
from albireo.models.blocks.layers import linear
from albireo.models.blocks.rope import pooled_rope_spec
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_HEADS, MAX_WIDTH
from albireo.models.settings.block_settings import Pooled
from albireo.models.settings.layer_kinds import MAX_LAYERS, layer_kinds
from albireo.models.settings.rope_settings import MAX_POSITIONS, parse_pooled_ropes

_WINDOW, _CHOSEN, _ALL = "sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"
#: Positions of an entry, by what a layer is, where nothing says it; and a key that may.
_RATES = {_CHOSEN: (4, "compress_rate_csa"), _ALL: (128, "compress_rate_hca")}


def parse_pooled(fields: Fields) -> Pooled:
    """What config.json says of it.

    Raises: ModelError for a missing or impossible value; UnsupportedModel for several KV heads, and for entries of
        other than a power of two of positions.
    """
    layers, head_dim = fields.integer("num_hidden_layers", 1, MAX_LAYERS), fields.integer("head_dim", 2, MAX_HEAD_DIM)
    heads = fields.integer("num_attention_heads", 1, MAX_HEADS)
    if (kv_heads := fields.integer("num_key_value_heads", 1, MAX_HEADS, default=1)) != 1:
        fields.unsupported("num_key_value_heads", kv_heads, "one KV head, which is key and value of all heads")
    rotary, index_dim = _rotary(fields, head_dim), fields.integer("index_head_dim", 2, MAX_HEAD_DIM)
    if head_dim % 2 or index_dim % 2 or index_dim < rotary:
        fields.fail("index_head_dim", index_dim, f"and head_dim={head_dim} must be even, and at least {rotary}")
    groups = fields.integer("o_groups", 1, heads)
    if heads % groups:
        fields.fail("o_groups", groups, f"must divide num_attention_heads={heads}")
    rates, kinds = _rates(fields), _kinds(fields, layers)
    positions = fields.integer("max_position_embeddings", 1, MAX_POSITIONS)
    return Pooled(
        tuple(rates.get(kind, 0) for kind in kinds),
        tuple(kind == _CHOSEN for kind in kinds),
        fields.integer("index_n_heads", 1, MAX_HEADS),
        index_dim,
        fields.integer("index_topk", 1, MAX_POSITIONS),
        rotary,
        fields.integer("q_lora_rank", 1, MAX_WIDTH),
        groups,
        fields.integer("o_lora_rank", 1, MAX_WIDTH),
        parse_pooled_ropes(fields, positions, head_dim, rotary),
    )


def _rotary(fields: Fields, head_dim: int) -> int:
    """Channels that are rotated: a number, or a part of a head."""
    said = fields.optional_integer("qk_rope_head_dim", 2, head_dim)
    part = fields.number("partial_rotary_factor", 0.0, 1.0, default=64 / 512 if said is None else said / head_dim)
    rotary = int(head_dim * part)
    if said not in (None, rotary):
        fields.fail("partial_rotary_factor", part, f"contradicts qk_rope_head_dim={said} of head_dim={head_dim}")
    if rotary < 2 or rotary % 2:
        fields.fail("partial_rotary_factor", part, f"must rotate pairs of head_dim={head_dim}")
    return rotary


def _rates(fields: Fields) -> dict[str, int]:
    """Positions of an entry, by what a layer is."""
    table, found = fields.table("compress_rates") or {}, {}
    inner = Fields(table, f"{fields.where}: compress_rates")
    for kind, (default, key) in _RATES.items():
        within = inner.integer(kind, 2, MAX_POSITIONS, default=default)
        found[kind] = fields.integer(key, 2, MAX_POSITIONS, default=within)
        if found[kind] & (found[kind] - 1):
            fields.unsupported("compress_rates", found, "an entry is of a power of two of positions")
    inner.refuse_unread((), {})
    return found


def _kinds(fields: Fields, layers: int) -> tuple[str, ...]:
    """What each layer is: in words, or by how many positions an entry has; else as transformers' class has it. What
    is said of layers that guess further tokens comes behind."""
    kinds = layer_kinds(fields, layers, (_WINDOW, _CHOSEN, _ALL))
    ratios = fields.raw("compress_ratios")
    if ratios is None:
        return kinds or tuple(_CHOSEN if i % 2 and i > 1 else _ALL for i in range(layers))
    words = {0: _WINDOW} | {default: kind for kind, (default, _) in _RATES.items()}
    is_list = isinstance(ratios, list) and len(ratios) >= layers and all(type(each) is int for each in ratios)
    if not is_list:
        fields.fail("compress_ratios", ratios, f"must be whole numbers, one for each of {layers} layers")
    if unknown := sorted({*ratios} - {*words}):
        fields.unsupported("compress_ratios", unknown, f"supported: {', '.join(map(short, words))}")
    found = tuple(words[each] for each in ratios[:layers])
    if kinds and kinds != found:
        fields.fail("compress_ratios", ratios, f"contradicts layer_types={short(kinds)}")
    return found


@dataclass(frozen=True, slots=True)
class _Ropes:
    """Rotations of a layer: of its heads, and of what scores entries."""

    heads: RopeSpec
    index: RopeSpec


class PooledAttention:
    """The attention of one graph's layers. KV caches: of all layers, then of entries, then of what chooses them."""

    def __init__(self, b: GraphBuilder, c: ModelConfig, max_model_len: int) -> None:
        assert c.blocks.pooled is not None, "the architecture's rules read it"
        self._b, self._c, self._pooled = b, c, c.blocks.pooled
        spec = partial(pooled_rope_spec, rotary=self._pooled.rotary, max_model_len=max_model_len)
        self._ropes = tuple(
            _Ropes(spec(rope, head_dim=c.head_dim), spec(rope, head_dim=self._pooled.index_dim))
            for rope in self._pooled.ropes
        )

    def layer(self, h: Value, layer: int) -> Value:
        """attention(h), [T, E] float32. Args: h: rounded."""
        b, c, pooled = self._b, self._c, self._pooled
        name, every = f"model.layers.{layer}.self_attn", pooled.every[layer]
        rope = self._ropes[1 if every else 0].heads
        low = linear(b, c, h, f"{name}.q_a_proj", pooled.query_rank, "q_a", False, None)
        with b.part("q_a_norm"):
            low = b.cast(self._normed(low, f"{name}.q_a_norm"), c.dtype)
        q = linear(b, c, low, f"{name}.q_b_proj", c.num_heads * c.head_dim, "q", False, None)
        with b.part("q_norm"):
            q = b.rms_norm(q, None, c.rms_norm_eps, num_heads=c.num_heads)
        k = linear(b, c, h, f"{name}.kv_proj", c.head_dim, "kv", False, None)
        with b.part("kv_norm"):
            k = self._normed(k, f"{name}.kv_norm")
        with b.part("rope"):
            q = b.cast(b.rope(q, rope, c.num_heads, c.head_dim, side_by_side=True), c.dtype)
            k = b.rope(k, rope, 1, c.head_dim, side_by_side=True)
        with b.part("kv"):
            b.kv_write(k, None, layer, 1, c.head_dim)
        sinks = b.weight(f"{name}.sinks", (c.num_heads,), "float32")
        if every:
            chosen = self._entries(h, low, layer, f"{name}.compressor")
            with b.part("attention"):
                near = self._attention(q, layer, window=c.windows[layer], sums=True)
                far = self._attention(q, self._cache(layer), chosen=chosen, every=every, sums=True)
                seen = b.join_sums(near, far, sinks, c.num_heads)
        else:
            with b.part("attention"):
                seen = self._attention(q, layer, sinks=sinks, window=c.windows[layer])
        with b.part("rope_back"):
            seen = b.cast(b.rope(seen, rope.back, c.num_heads, c.head_dim, side_by_side=True), c.dtype)
        with b.part("o_a"):
            rows, columns = pooled.groups * pooled.out_rank, c.num_heads // pooled.groups * c.head_dim
            weight = b.weight(f"{name}.o_a_proj.weight", (rows, columns), c.dtype)
            made = b.cast(b.head_linear(seen, weight, pooled.groups), c.dtype)
        return linear(b, c, made, f"{name}.o_b_proj", c.hidden_size, "o", False, None)

    def _attention(
        self,
        q: Value,
        cache: int,
        *,
        sinks: Value | None = None,
        chosen: Value | None = None,
        window: int | None = None,
        **said: Any,
    ) -> Value:
        c = self._c
        return self._b.attention(
            q,
            sinks,
            chosen=chosen,
            layer=cache,
            num_heads=c.num_heads,
            num_kv_heads=1,
            head_dim=c.head_dim,
            scale=c.scale,
            window=window,
            softcap=None,
            value_dim=c.head_dim,
            **said,
        )

    def _cache(self, layer: int) -> int:
        """Of a layer's entries."""
        return self._c.num_layers + self._c.pooled_layers.index(layer)

    def _entries(self, h: Value, low: Value, layer: int, name: str) -> Value | None:
        """Writes a layer's entries. Returns: those that rows see, [T, count] int32; None: all there are.

        Args: low: what queries are made of.
        """
        b, c, pooled = self._b, self._c, self._pooled
        with b.part("entries"):
            self._write(h, layer, name, self._cache(layer), c.head_dim, self._ropes[1].heads)
        if layer not in c.choosing_layers:
            return None
        cache = c.num_layers + len(c.pooled_layers) + c.choosing_layers.index(layer)
        heads, dim, rope = pooled.index_heads, pooled.index_dim, self._ropes[1].index
        name = f"{name}.indexer"
        with b.part("indexer"):
            self._write(h, layer, name, cache, dim, rope)
            q = linear(b, c, low, f"{name}.q_b_proj", heads * dim, "q", False, None)
            with b.part("rope"):
                q = b.cast(b.rope(q, rope, heads, dim, side_by_side=True), c.dtype)
            weights = linear(b, c, h, f"{name}.scorer.weights_proj", heads, "weights", False, "router")
            with b.part("choice"):
                weights, every = b.scale(weights, (heads * dim) ** -0.5), pooled.every[layer]
                said = {"num_heads": heads, "head_dim": dim, "count": pooled.count, "every": every}
                return b.choose_keys(q, weights, layer=cache, **said)

    def _write(self, h: Value, layer: int, name: str, cache: int, width: int, rope: RopeSpec) -> None:
        """Entries of so many channels: means of what positions give, normed, and rotated as the first of them."""
        b, c, pooled = self._b, self._c, self._pooled
        every, series = pooled.every[layer], 2 if pooled.overlaps[layer] else 1
        values, gates = (
            linear(b, c, h, f"{name}.{module}", series * width, part, False, "router")
            for module, part in (("kv_proj", "values"), ("gate_proj", "gates"))
        )
        with b.part("pool"):
            places = b.weight(f"{name}.position_bias", (every, series * width), "float32")
            means = b.pool_rows(values, (gates, places), every, series)
        with b.part("norm"):
            means = self._normed(means, f"{name}.kv_norm")
        with b.part("rope"):
            means = b.rope(means, replace(rope, behind=every - 1), 1, width, side_by_side=True)
        with b.part("kv"):
            b.kv_write(means, None, cache, 1, width, every)

    def _normed(self, x: Value, module: str) -> Value:
        weight = self._b.weight(f"{module}.weight", (int(x.type.dims[-1]),), "float32")
        return self._b.rms_norm(x, weight, self._c.rms_norm_eps)
