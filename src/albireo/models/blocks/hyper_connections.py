"""Several residual streams: a block reads a sum of them, and what it makes is added to each by a number of its own.
All numbers are sigmoids of a linear of the streams.

Called by the architecture files. Source: Zhu et al. 2024, Hyper-Connections. In Hunyuan 4 each stream stays beside what
is added; in DeepSeek V4 each becomes a sum of all, by a matrix whose rows and columns add up to one (Xie et al. 2026,
Manifold-Constrained Hyper-Connections). In Qwen 4 a block reads their mean, behind norms and gates of channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.models.blocks.layers import linear
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
    if settings.rank:
        with b.part("streams"):
            normed = _normed_apart(b, c, streams, name)
            numbers = _few(b, c, normed, f"{name}.block_inject_weight", settings.count, "written", "router")
            written = b.scale(b.unary(numbers, "sigmoid"), settings.magnitude)
            gated = _gated(b, c, normed, name)
            with b.part("read"):
                x = _mean(b, c, gated)
        made = block(x)
        with b.part("streams"):
            return b.add_parts(streams, made, settings.count, written, 0.0)
    with b.part("streams"):
        normed = _normed(b, c, streams)
        read, written = (_sigmoids(b, c, normed, name, BLOCK, place) for place in range(2))
        x = _sum(b, c, streams, read)
        mixed = _mixed(b, c, streams, normed, name) if settings.rounds else streams
    made = block(x)
    with b.part("streams"):
        # sigmoids have a little more added where streams are not mixed
        least = 0.0 if settings.rounds else settings.least
        return b.add_parts(mixed, made, settings.count, b.scale(written, settings.magnitude), least)


def joined(b: GraphBuilder, c: ModelConfig, streams: Value, name: str) -> Value:
    """[T, E]: their sum, which the last norm reads."""
    with b.part("joined"):
        return _sum(b, c, streams, _sigmoids(b, c, _normed(b, c, streams), name, HEAD, 0))


def gated_mean(b: GraphBuilder, c: ModelConfig, streams: Value, name: str) -> Value:
    """[T, E]: what a block would read of them; the head does, in the place of joined() and of a norm."""
    with b.part("joined"):
        gated = _gated(b, c, _normed_apart(b, c, streams, name), name)
    with b.part("head.norm"):
        return _mean(b, c, gated)


def _normed_apart(b: GraphBuilder, c: ModelConfig, streams: Value, name: str) -> Value:
    """Each stream normed by itself, with weights of its own, float32."""
    with b.part("norm"):
        width = int(streams.type.dims[-1])
        weight = b.weight(f"{name}.hc_norm.weight", (width,), "float32", plus=c.multipliers.norm_plus)
        return b.gain(b.rms_norm(streams, None, c.rms_norm_eps, num_heads=_settings(c).count), weight)


def _gated(b: GraphBuilder, c: ModelConfig, normed: Value, name: str) -> Value:
    """Streams times gates of their channels: sigmoids of two linears of all, with silu between."""
    settings, width = _settings(c), int(normed.type.dims[-1])
    low = _few(b, c, normed, f"{name}.input_mix_weight_down", settings.rank, "low", None)
    with b.part("low"):
        low = b.cast(b.unary(low, "silu"), c.dtype)
    gates = linear(b, c, low, f"{name}.input_mix_weight_up", width, "read", False, None)
    with b.part("read"):
        return b.mul(b.unary(gates, "sigmoid"), normed)


def _few(b: GraphBuilder, c: ModelConfig, x: Value, name: str, rows: int, part: str, role: str | None) -> Value:
    """A linear of all streams, divided by how many they are."""
    made = linear(b, c, b.cast(x, c.dtype), name, rows, part, False, role)
    with b.part(part):
        return b.scale(made, 1 / _settings(c).count)


def mean_of(b: GraphBuilder, c: ModelConfig, streams: Value) -> Value:
    """[T, E]: of the streams, in the place of joined()."""
    with b.part("joined"):
        return _mean(b, c, streams)


def _mean(b: GraphBuilder, c: ModelConfig, streams: Value) -> Value:
    count = _settings(c).count
    x, *others = b.split(streams, (c.hidden_size,) * count)
    for each in others:
        x = b.add(x, each)
    return b.scale(x, 1 / count)


def _settings(c: ModelConfig) -> Hyper:
    assert c.blocks.hyper is not None, "the architecture's rules read its keys"
    return c.blocks.hyper


def _normed(b: GraphBuilder, c: ModelConfig, streams: Value) -> Value:
    """All streams as one row, float32."""
    with b.part("norm"):
        return b.rms_norm(streams, None, c.rms_norm_eps)


def _sigmoids(b: GraphBuilder, c: ModelConfig, normed: Value, name: str, names: HyperNames, place: int) -> Value:
    """[T, streams] of sigmoid(scale * matrix @ normed + base). Args: place: of several such, one below the other."""
    count = _settings(c).count
    with b.part(("read", "written")[place]):
        rows = ((place * count, (place + 1) * count),)
        return b.unary(_numbers(b, c, normed, name, names, place, rows), "sigmoid")


def _numbers(
    b: GraphBuilder,
    c: ModelConfig,
    normed: Value,
    name: str,
    names: HyperNames,
    place: int,
    rows: tuple[tuple[int, int], ...],
) -> Value:
    """[T, numbers] of scale * matrix @ normed + base. Args: place: of the scale. rows: of matrix and base."""
    count, width = sum(last - first for first, last in rows), int(normed.type.dims[-1])
    module, dtype = f"{name}.{names.matrix}.{place}", "float32" if _settings(c).rounds else c.dtype
    segments: tuple[RowSegment, ...] = (RowSegment(f"{name}.{names.scale}", place, place + 1),)
    # in front of the matrix, behind which there is a sum already
    scaled = b.scale_by(normed, b.weight(f"{module}.scale", (1,), "float32", segments=segments))
    segments = tuple(RowSegment(f"{name}.{names.matrix}", *each) for each in rows)
    weight = b.weight(f"{module}.weight", (count, width), dtype, segments=segments)
    segments = tuple(RowSegment(f"{name}.{names.base}", *each) for each in rows)
    base = b.weight(f"{module}.bias", (count,), "float32", segments=segments)
    return b.linear(b.cast(scaled, dtype), weight, base, "router")


def _mixed(b: GraphBuilder, c: ModelConfig, streams: Value, normed: Value, name: str) -> Value:
    """The streams, each a sum of all: stream k of them by column k of a matrix."""
    settings = _settings(c)
    count = settings.count
    with b.part("mixed"):
        # its rows are columns here, so that what makes a stream lies side by side
        places = [2 * count + row * count + column for column in range(count) for row in range(count)]
        rows = tuple((place, place + 1) for place in places)
        matrix = b.balance(_numbers(b, c, normed, name, BLOCK, 2, rows), settings.rounds, settings.least)
        return b.add_parts(b.scale(streams, 0.0), streams, count, matrix, 0.0)


def _sum(b: GraphBuilder, c: ModelConfig, streams: Value, numbers: Value) -> Value:
    """Each stream times its number and a little more."""
    settings = _settings(c)
    nothing = b.scale(b.split(streams, (c.hidden_size,) * settings.count)[0], 0.0)
    return b.add_parts(nothing, streams, 1, numbers, settings.least)
