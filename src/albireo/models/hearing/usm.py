"""Google's Universal Speech Model: layers of attention to what is near before, and of convolution of what is before.

Called by the Gemmas beside it. Queries are scaled channel by channel; scores have added what queries say by distance,
and are capped. Positions see a window of what is before them, so that what is heard does not depend on what is behind,
but for what convolutions of frames see. Numbers before and behind linears may be clipped, between bounds that the
checkpoint has. Source: Zhang et al. 2023, Google USM, as transformers computes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.models.blocks.feed_forward import activated
from albireo.models.hearing.positions import sines
from albireo.models.hearing.taps import before_alone
from albireo.models.vision.encoder import EncoderSettings, norm
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32


class Names(NamedTuple):
    """What a checkpoint calls the parts of a layer, behind its number. linear: what a module of a linear has its weight
    in; empty: in itself."""

    first: str
    attention: str
    before: str
    behind: str
    post: str
    distances: str
    convolution: str
    second: str
    out: str
    linear: str = ""


@dataclass(frozen=True, slots=True)
class UsmLayers:
    """The layers.

    Fields: encoder: of which linears have no bias, and norms are RMS norms. window: positions that one sees, itself
    included. cap: of scores. most: numbers between linears and norms are kept from -most to most. share: of what an FFN
    gives that is added. kernel: of convolutions, eps: of norms around them. factor: of keys. is_clipped: linears are.
    """

    encoder: EncoderSettings
    names: Names
    prefix: str
    window: int
    cap: float
    most: float
    share: float
    kernel: int
    eps: float
    factor: float
    is_clipped: bool

    def layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, names, name = self.encoder, self.names, f"{self.prefix}.{number}"
        x = self._ffn(b, x, f"layers.{number}.first", f"{name}.{names.first}")
        with b.part(f"layers.{number}.attn"):
            h = norm(b, c, b.clip(x, self.most), f"{name}.{names.before}")
            a = self._attention(b, h, name)
            o = b.clip(self.linear(b, a, f"{name}.{names.post}", c.hidden_size, "o"), self.most)
            x = b.add(x, norm(b, c, o, f"{name}.{names.behind}"))
        with b.part(f"layers.{number}.conv"):
            x = b.add(x, self._convolution(b, x, f"{name}.{names.convolution}"))
        x = self._ffn(b, x, f"layers.{number}.second", f"{name}.{names.second}")
        with b.part(f"layers.{number}.out"):
            return norm(b, c, b.clip(x, self.most), f"{name}.{names.out}")

    def _ffn(self, b: GraphBuilder, x: Value, part: str, name: str) -> Value:
        """x, and a share of what an FFN gives."""
        c = self.encoder
        with b.part(part):
            h = norm(b, c, b.clip(x, self.most), f"{name}.pre_layer_norm")
            m = self.linear(b, h, f"{name}.ffw_layer_1", c.intermediate_size, "up")
            with b.part("act"):
                m = activated(b, m, c.act)
            m = b.clip(self.linear(b, m, f"{name}.ffw_layer_2", c.hidden_size, "down"), self.most)
            return b.add(x, b.scale(norm(b, c, m, f"{name}.post_layer_norm"), self.share))

    def _attention(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c, of = self.encoder, f"{name}.{self.names.attention}"
        q, k, v = (self.linear(b, h, f"{of}.{part}_proj", c.hidden_size, part) for part in "qkv")
        with b.part("gain"):
            q = b.cast(b.gain(q, b.weight(f"{of}.gain", (c.hidden_size,), "float32")), c.dtype)
        with b.part("by_distance"):
            table = b.weight(f"{of}.by_distance", (c.num_heads * 2 * self.window, c.head_dim), c.dtype)
            near = b.head_linear(q, table, c.num_heads)
        with b.part("kv"):
            b.kv_write(k, v, 0, c.num_heads, c.head_dim)
        with b.part("attention"):
            return b.attention(
                q,
                by_columns=(near,),
                layer=0,
                num_heads=c.num_heads,
                num_kv_heads=c.num_heads,
                head_dim=c.head_dim,
                scale=1.0,
                window=self.window,
                softcap=self.cap,
                reach=self.window,
            )

    def _convolution(self, b: GraphBuilder, x: Value, name: str) -> Value:
        c = self.encoder
        h = norm(b, c, x, f"{name}.pre_layer_norm", self.eps)
        up, gate = self.linears(b, h, f"{name}.linear_start", ("up", "gate"))
        with b.part("mix"):
            x = b.mul(up, b.unary(gate, "sigmoid"))
            # of a convolution that sees what is before: as many zeros are behind
            weight = b.weight(f"{name}.taps", (c.hidden_size, 2 * self.kernel - 1), "float32")
            x = b.clip(b.depthwise_conv(x, weight, None, "none"), self.most)
            x = activated(b, norm(b, c, x, f"{name}.conv_norm", self.eps), c.act)
        return self.linear(b, x, f"{name}.linear_end", c.hidden_size, "down")

    def linear(self, b: GraphBuilder, x: Value, name: str, width: int, part: str) -> Value:
        """[T, width] float32 of x."""
        with b.part(part):
            x = b.cast(self._clipped(b, x, f"{name}.input"), self.encoder.dtype)
            weight = b.weight(self._weight(name), (width, int(x.type.dims[-1])), self.encoder.dtype)
            return self._clipped(b, b.linear(x, weight), f"{name}.output")

    def linears(self, b: GraphBuilder, x: Value, name: str, parts: tuple[str, ...]) -> list[Value]:
        """Parts of what a linear gives, each as wide as the hidden states: they are clipped alike."""
        c, source, found = self.encoder, self._weight(name), []
        x = b.cast(self._clipped(b, x, f"{name}.input"), c.dtype)
        for place, part in enumerate(parts):
            rows = (RowSegment(source, place * c.hidden_size, (place + 1) * c.hidden_size),)
            weight = b.weight(f"{name}.{part}.weight", (c.hidden_size, c.hidden_size), c.dtype, segments=rows)
            with b.part(part):
                found.append(self._clipped(b, b.linear(x, weight), f"{name}.output"))
        return found

    def _weight(self, name: str) -> str:
        return f"{name}{self.names.linear}.weight"

    def _clipped(self, b: GraphBuilder, x: Value, name: str) -> Value:
        if not self.is_clipped:
            return x
        bounds = tuple(RowSegment(f"{name}_{end}", 0, 1) for end in ("min", "max"))
        return b.clamp(x, b.weight(name, (2,), "float32", segments=bounds))

    # -- what is made of the checkpoint's -----------------------------------------------------------------------------

    @property
    def unread(self) -> tuple[str, ...]:
        """Names of tensors that others are made of."""
        parts = f"{self.names.attention}.per_dim_scale", f"{self.names.attention}.{self.names.distances}.weight"
        return tuple(
            f"{self.prefix}.*.{part}" for part in (*parts, f"{self.names.convolution}.depthwise_conv1d.weight")
        )

    @property
    def made(self) -> Mapping[str, Made]:
        return dict(each for number in range(self.encoder.num_layers) for each in self._made(f"{self.prefix}.{number}"))

    def _made(self, name: str) -> Iterator[tuple[str, Made]]:
        c, of, conv = self.encoder, f"{name}.{self.names.attention}", f"{name}.{self.names.convolution}"
        yield f"{of}.gain", Made((c.hidden_size,), (f"{of}.per_dim_scale",), self._gain)
        dims = c.num_heads * 2 * self.window, c.head_dim
        yield f"{of}.by_distance", Made(dims, (f"{of}.{self.names.distances}.weight",), self._by_distance)
        taps = c.hidden_size, 2 * self.kernel - 1
        made = before_alone(c.hidden_size, self.kernel)
        yield f"{conv}.taps", Made(taps, (f"{conv}.depthwise_conv1d.weight",), made)

    def _gain(self, scale: F32) -> F32:
        """Of queries, channel by channel, alike for each head; keys' factor, too, which what is added has not."""
        softplus = np.logaddexp(0.0, scale.astype(np.float64))
        gain = self.factor * self.encoder.head_dim**-0.5 / math.log(2.0) * softplus
        return np.tile(gain, self.encoder.num_heads).astype(np.float32)

    def _by_distance(self, weight: F32) -> F32:
        """[heads * 2 * window, head_dim]: keys of what is so far before a row, in the order of distance_columns; what
        is behind nobody sees.

        Args: weight: [heads * head_dim, width].
        """
        c = self.encoder
        waves = sines(self.window, c.hidden_size).astype(np.float64)
        keys = (waves @ weight.astype(np.float64).T).reshape(self.window, c.num_heads, c.head_dim) / self.factor
        found = np.zeros((c.num_heads, 2 * self.window, c.head_dim))
        found[:, self.window :] = keys.transpose(1, 0, 2)
        return found.reshape(-1, c.head_dim).astype(np.float32)
