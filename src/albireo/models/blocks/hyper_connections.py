"""Several residual streams: a block reads a sum of them, and what it makes is added to each by a number of its own.
All numbers are sigmoids of a linear of the streams.

Called by the architecture files. Source: Zhu et al. 2024, Hyper-Connections; streams are not mixed with each other, as
in Hunyuan 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.models.config import ModelConfig
from albireo.models.settings.block_settings import Hyper


class HyperNames(NamedTuple):
    """What an architecture calls the matrix, the vector that is added, and what is multiplied."""

    matrix: str = "fn"
    base: str = "base"
    scale: str = "scale"


BLOCK, HEAD = HyperNames(), HyperNames("hc_fn", "hc_base", "hc_scale")


def streams_of(b: GraphBuilder, c: ModelConfig, x: Value) -> Value:
    """[T, streams * E]: x in each."""
    streams = x
    with b.part("streams"):
        for _ in range(_settings(c).count - 1):
            streams = b.join_heads(streams, x, 1)
    return streams


def through(b: GraphBuilder, c: ModelConfig, streams: Value, name: str, block: Callable[[Value], Value]) -> Value:
    """The streams with what a block makes of their sum, [T, E] float32, added to each. Args: name: of what says how."""
    settings = _settings(c)
    with b.part("streams"):
        normed = _normed(b, c, streams)
        read, written = (_sigmoids(b, c, normed, name, BLOCK, place) for place in range(2))
        x = _sum(b, c, streams, read)
    made = block(x)
    with b.part("streams"):
        return b.add_parts(streams, made, settings.count, b.scale(written, settings.magnitude), settings.least)


def joined(b: GraphBuilder, c: ModelConfig, streams: Value, name: str) -> Value:
    """[T, E]: their sum, which the last norm reads."""
    with b.part("joined"):
        return _sum(b, c, streams, _sigmoids(b, c, _normed(b, c, streams), name, HEAD, 0))


def _settings(c: ModelConfig) -> Hyper:
    assert c.blocks.hyper is not None, "the architecture's rules read its keys"
    return c.blocks.hyper


def _normed(b: GraphBuilder, c: ModelConfig, streams: Value) -> Value:
    """All streams as one row, float32."""
    with b.part("norm"):
        return b.rms_norm(streams, None, c.rms_norm_eps)


def _sigmoids(b: GraphBuilder, c: ModelConfig, normed: Value, name: str, names: HyperNames, place: int) -> Value:
    """[T, streams] of sigmoid(scale * matrix @ normed + base). Args: place: of several such, one below the other."""
    count, width = _settings(c).count, int(normed.type.dims[-1])
    module = f"{name}.{names.matrix}.{place}"
    first, last = place * count, (place + 1) * count
    with b.part(("read", "written")[place]):
        segments = (RowSegment(f"{name}.{names.scale}", place, place + 1),)
        # in front of the matrix, behind which there is a sum already
        scaled = b.scale_by(normed, b.weight(f"{module}.scale", (1,), "float32", segments=segments))
        segments = (RowSegment(f"{name}.{names.matrix}", first, last),)
        weight = b.weight(f"{module}.weight", (count, width), c.dtype, segments=segments)
        segments = (RowSegment(f"{name}.{names.base}", first, last),)
        base = b.weight(f"{module}.bias", (count,), "float32", segments=segments)
        return b.unary(b.linear(b.cast(scaled, c.dtype), weight, base, "router"), "sigmoid")


def _sum(b: GraphBuilder, c: ModelConfig, streams: Value, numbers: Value) -> Value:
    """Each stream times its number and a little more."""
    settings = _settings(c)
    nothing = b.scale(b.split(streams, (c.hidden_size,) * settings.count)[0], 0.0)
    return b.add_parts(nothing, streams, 1, numbers, settings.least)
