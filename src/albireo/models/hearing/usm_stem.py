"""Two convolutions in time and frequency before layers of the Universal Speech Model, of a quarter of the frames each.

Called by the Gemmas beside it, which norm what the convolutions give each in a way of its own. A piece is what some
rows see of a tile, for convolutions' rows are many times what they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.stem import KERNEL, STRIDE, SeesNothing, check_heard, halved, windows
from albireo.models.hearing.usm import UsmLayers
from albireo.models.vision.encoder import EncoderSettings, linear
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32
from albireo.models.vision.tower_inputs import GivesRowsOnce

HALVINGS = 2
#: Of the longest sound: 30 s.
MOST_FRAMES = 3000
PREFIX = "audio_tower.subsample_conv_projection"
#: Rows of a piece.
_PIECE = 64


@dataclass(frozen=True, slots=True)
class _Span:
    """Rows of the first convolution that a piece has, of count: from first to last - 1; before and behind those that
    there are zeros."""

    first: int
    last: int
    count: int


class UsmEar(GivesRowsOnce):
    """Of a tower that has a UsmStem and UsmLayers behind it; see vision.tower.VisionTower."""

    __slots__ = ()
    layers: UsmLayers
    num_bands: int
    channels: tuple[int, int]

    @property
    def dtype(self) -> str:
        return self.layers.encoder.dtype

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        return self.layers.unread

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        return self.layers.made

    def patches(self, height: int, width: int) -> int:
        check_heard(height, width, self.num_bands, MOST_FRAMES)
        return halved(height, HALVINGS)

    def states(self, b: GraphBuilder) -> Value:
        """Behind all layers, of what the stem gives."""
        c = self.layers.encoder
        with b.part("embed"):
            given = b.given(self.channels[1] * halved(self.num_bands, HALVINGS), 0)
            x = linear(b, c, given, f"{PREFIX}.input_proj_linear", c.hidden_size, "frames", False)
        for number in range(c.num_layers):
            x = self.layers.layer(b, x, number)
        return x


@dataclass(frozen=True, slots=True)
class UsmStem(SeesNothing):
    """Implements stem.Stem.

    Fields: channels: of what each convolution gives. names: of their modules. before: frames that one sees before the
    one that it begins at; the others of KERNEL are that one, and those behind it. spans: of the pieces that are
    computed, the last is the one at hand.
    """

    encoder: EncoderSettings
    num_bands: int
    channels: tuple[int, int]
    names: tuple[str, str]
    before: int
    spans: list[_Span] = field(default_factory=list)

    def graphs(self) -> tuple[Graph, ...]:
        return tuple(self._graph(number) for number in range(HALVINGS))

    def _graph(self, number: int) -> Graph:
        b, name = GraphBuilder(), f"{PREFIX}.{self.names[number]}"
        with b.part("embed"):
            given = b.given(KERNEL**2 * (1 if number == 0 else self.channels[0]), 0)
            x = linear(b, self.encoder, given, f"{name}.conv", self.channels[number], "frames", False)
            return pooled_states(b, self.normed(b, x, f"{name}.norm"))

    def normed(self, b: GraphBuilder, x: Value, name: str) -> Value:
        """What a program makes of what a convolution gives."""
        return x

    def placed(self, number: int, places: F32) -> F32:
        """What the host makes of what a program gives. Args: places: of a convolution, [frames, bands, channels]."""
        return places

    def most_rows(self, patches: int) -> tuple[int, ...]:
        rows, bands = min(_PIECE, patches), self.num_bands
        return (STRIDE * rows + 1) * halved(bands, 1), rows * halved(bands, HALVINGS)

    def pieces(self, tile: F32) -> Iterator[F32]:
        self.spans.clear()
        count = halved(len(tile), 1)
        for first in range(0, halved(len(tile), HALVINGS), _PIECE):
            last = min(first + _PIECE, halved(len(tile), HALVINGS))
            span = _Span(*self._seen(first, last), count)
            self.spans.append(span)
            seen = self._seen(max(0, span.first), min(span.last, count))
            yield _neighbours(_from(tile[:, :, None], *seen))

    def behind(self, number: int, hidden: F32) -> F32:
        places = self.placed(number, hidden.reshape(-1, halved(self.num_bands, number + 1), self.channels[number]))
        if number + 1 == HALVINGS:
            # a row of each frame: all channels of a band, as the linear behind reads them
            return places.reshape(len(places), -1)
        span = self.spans[-1]
        found = np.zeros((span.last - span.first, *places.shape[1:]), np.float32)
        found[max(0, -span.first) :][: len(places)] = places
        return _neighbours(found)

    def _seen(self, first: int, last: int) -> tuple[int, int]:
        """Rows before a convolution that its rows first .. last - 1 see."""
        return STRIDE * first - self.before, STRIDE * (last - 1) + KERNEL - self.before


def _from(places: F32, first: int, last: int) -> F32:
    """Rows first .. last - 1, zeros where there are none."""
    count = len(places)
    kept = places[max(0, first) : min(last, count)]
    return np.pad(kept, ((max(0, -first), max(0, last - max(first, count))), (0, 0), (0, 0)))


def _neighbours(places: F32) -> F32:
    """[rows * bands / 2, 9 * channels] of what rows see of [frames, bands, channels], zeros beside: of each second
    place the nine that it sees, by frame, then by band, then by channel."""
    found = windows(np.pad(places, ((0, 0), (1, 1), (0, 0))))
    return found.reshape(len(found) * found.shape[1], -1)
