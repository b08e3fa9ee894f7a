"""A Perceiver resampler as a tower's stem: so many learned rows ask all patches of a tile, and each other, in a few
layers.

Of patches only keys and values of each layer are wanted, so these are computed once, behind the layers that give
patches; what asks is few rows, of which one program after another computes a layer. Attention lies between them, in a
program of its own whose rows are patches and behind them what asks: of patches nothing asks, and what they are given
nobody reads. Sources: Jaegle et al. 2021, Perceiver; Laurençon et al.
2024, What matters when building vision-language models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import EncoderSettings, linear, rounded_norm
from albireo.models.vision.patches import F32, Sequences


@dataclass(frozen=True, slots=True)
class Perceiver:
    """Its layers, whose norms are RMS norms and whose linears have no bias.

    Fields: prefix: of names. settings: width, FFN, layers and heads of queries. head_dim: of a head, which is no part
    of the width. count: rows that ask.
    """

    prefix: str
    settings: EncoderSettings
    head_dim: int
    count: int

    @property
    def latents(self) -> str:
        """Name of the rows that ask."""
        return f"{self.prefix}.latents"

    @property
    def of_queries(self) -> int:
        return self.settings.num_heads * self.head_dim

    @property
    def of_keys(self) -> int:
        """Numbers of a row's keys, and as many of its values."""
        return self.settings.kv_heads * self.head_dim

    def keys_and_values(self, b: GraphBuilder, x: Value) -> Value:
        """[T, layers * 2 of_keys] that each layer sees of rows x."""
        return _joined(
            b, [self._seen(b, x, number, "input_context_norm") for number in range(self.settings.num_layers)]
        )

    def asked(self, b: GraphBuilder, x: Value, number: int) -> Value:
        """[T, of_queries + 2 of_keys] of rows x that ask in a layer."""
        c, name = self.settings, f"{self.prefix}.layers.{number}"
        h = rounded_norm(b, c, x, f"{name}.input_latents_norm")
        q = linear(b, c, h, f"{name}.self_attn.q_proj", self.of_queries, "q", False)
        return _joined(b, [q, self._seen(b, x, number, "input_latents_norm")])

    def answered(self, b: GraphBuilder, x: Value, a: Value, number: int) -> Value:
        """x behind a layer, of what attention gave in it."""
        c, name = self.settings, f"{self.prefix}.layers.{number}"
        with b.part(f"layers.{number}.attn"):
            x = b.add(x, linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", False))
        with b.part(f"layers.{number}.mlp"):
            h = rounded_norm(b, c, x, f"{name}.post_attention_layernorm")
            return b.add(x, gated(b, c, h, f"{name}.mlp", c.hidden_size))

    def _seen(self, b: GraphBuilder, x: Value, number: int, norm: str) -> Value:
        c, name = self.settings, f"{self.prefix}.layers.{number}"
        with b.part(f"layers.{number}.seen"):
            h = rounded_norm(b, c, x, f"{name}.{norm}")
            each = (linear(b, c, h, f"{name}.self_attn.{part}_proj", self.of_keys, part, False) for part in "kv")
            return _joined(b, list(each))

    def attention(self) -> Graph:
        """Given queries, keys and values of patches and of what asks -> [R, of_queries]."""
        b, c = GraphBuilder(), self.settings
        q, k, v = (b.given(width, place) for place, width in enumerate((self.of_queries, self.of_keys, self.of_keys)))
        with b.part("kv"):
            b.kv_write(k, v, 0, c.kv_heads, self.head_dim)
        with b.part("attention"):
            a = b.attention(
                b.cast(q, c.dtype),
                layer=0,
                num_heads=c.num_heads,
                num_kv_heads=c.kv_heads,
                head_dim=self.head_dim,
                scale=self.head_dim**-0.5,
                window=None,
                softcap=None,
                both_ways=True,
            )
        return pooled_states(b, a)


@dataclass(slots=True)
class PerceiverStem:
    """Implements stem.Stem, of one tile. What it gives is what asked in the last layer, and what attention gave it.

    Fields: patches: gives rows of a graph that is given those of a tile. cut: a tile -> what is given. most: patches of
    a tile at most. latents [count, width], once held.
    """

    perceiver: Perceiver
    patches: Callable[[GraphBuilder], Value]
    cut: Callable[[F32], tuple[F32, ...]]
    most: int
    latents: F32 | None
    _given: tuple[F32, ...] = field(default=(), init=False)
    _seen: F32 | None = field(default=None, init=False)
    _asking: F32 | None = field(default=None, init=False)

    def graphs(self) -> tuple[Graph, ...]:
        """Keys and values of patches; what the first layer asks; and of each layer its attention, then but for the last
        what is behind it and what the next one asks."""
        p, b = self.perceiver, GraphBuilder()
        found = [pooled_states(b, p.keys_and_values(b, self.patches(b)))]
        b = GraphBuilder()
        found += [pooled_states(b, p.asked(b, b.given(p.settings.hidden_size, 0), 0)), p.attention()]
        for number in range(1, p.settings.num_layers):
            b = GraphBuilder()
            x = p.answered(b, b.given(p.settings.hidden_size, 0), b.given(p.of_queries, 1), number - 1)
            found += [pooled_states(b, _joined(b, [x, p.asked(b, x, number)])), p.attention()]
        return tuple(found)

    def most_rows(self, patches: int) -> tuple[int, ...]:
        count = self.perceiver.count
        return self.most, *(count, self.most + count) * self.perceiver.settings.num_layers

    def pieces(self, tile: F32) -> Iterator[F32]:
        self._given = self.cut(tile)
        yield self._given[0]

    def sequences(self, number: int, rows: int) -> Sequences:
        return ()

    def given(self, number: int, rows: F32) -> tuple[tuple[F32, ...], F32 | None]:
        if number == 0:
            return self._given, None
        if number == 1:
            return (rows,), None
        if number % 2:
            return halves(rows, self.perceiver.settings.hidden_size), None
        queries, seen = halves(rows, self.perceiver.of_queries)
        return (queries, *halves(seen, self.perceiver.of_keys)), None

    def behind(self, number: int, hidden: F32) -> F32:
        p = self.perceiver
        if self.latents is None:
            raise InvariantError(f"{p.latents} is read before it is held")
        if number == 0:
            self._seen, self._asking = hidden.copy(), self.latents
            return self.latents
        assert self._seen is not None and self._asking is not None, "patches are computed first"
        if number % 2 == 0:
            return np.concatenate([self._asking, hidden[len(self._seen) :]], axis=1)
        asked = hidden
        if number > 1:
            self._asking, asked = halves(hidden, p.settings.hidden_size)
        at = 2 * p.of_keys * (number // 2)
        of_patches = np.pad(self._seen[:, at : at + 2 * p.of_keys], ((0, 0), (p.of_queries, 0)))
        return np.concatenate([of_patches, asked])


def gated(b: GraphBuilder, c: EncoderSettings, x: Value, name: str, width: int) -> Value:
    """[T, width] of an FFN with a gate and no bias."""
    up, gate = (linear(b, c, x, f"{name}.{each}_proj", c.intermediate_size, each, False) for each in ("up", "gate"))
    with b.part("act"):
        m = b.cast(b.mul(activated(b, gate, c.act), up), c.dtype)
    return linear(b, c, m, f"{name}.down_proj", width, "down", False)


def halves(rows: F32, width: int) -> tuple[F32, F32]:
    """The first width columns, and the others."""
    return np.ascontiguousarray(rows[:, :width]), np.ascontiguousarray(rows[:, width:])


def _joined(b: GraphBuilder, parts: list[Value]) -> Value:
    """Side by side."""
    x, *others = parts
    with b.part("join"):
        for other in others:
            x = b.join_heads(x, other, 1)
    return x
