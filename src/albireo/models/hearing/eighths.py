"""Three convolutions in time and frequency, of which the last two are of each channel by itself: of frames an eighth is
left. A stem of conformers, as NeMo has it, a piece of a tile at a time.

Called by the families beside it. What convolutions of channels sum is the host's; linears between are programs. A piece
is what some rows see of a tile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.node import Graph
from albireo.models.hearing.stem import KERNEL, STRIDE, SeesNothing, halved, windows
from albireo.models.vision.encoder import EncoderSettings, convolution
from albireo.models.vision.patches import F32

HALVINGS = 3
#: Rows of a piece.
_PIECE = 32


@dataclass(frozen=True, slots=True)
class EighthsStem(SeesNothing):
    """Implements stem.Stem.

    Fields: channels: of each convolution. prefix: of their modules, behind which their numbers come. act: behind each.
    mean, gain: names of host tensors: what is taken off frames, and what they are multiplied by then. held: of host
    tensors. spans: rows of each convolution of the piece at hand, from first to last - 1, and how many all have.
    """

    encoder: EncoderSettings
    num_bands: int
    channels: int
    most: int
    prefix: str
    act: str
    mean: str
    gain: str
    held: Mapping[str, F32]
    spans: list[tuple[int, int, int]] = field(default_factory=list)

    @staticmethod
    def host_names(prefix: str) -> tuple[str, ...]:
        """Of convolutions of channels."""
        modules = (f"{prefix}.{_channelwise(number)}" for number in range(1, HALVINGS))
        return tuple(f"{module}.{kind}" for module in modules for kind in ("weight", "bias"))

    def graphs(self) -> tuple[Graph, ...]:
        return tuple(
            convolution(self.encoder, width, f"{self.prefix}.{3 * number}", self.channels, self.act)
            for number, width in enumerate((KERNEL**2, *(self.channels,) * (HALVINGS - 1)))
        )

    def most_rows(self, patches: int) -> tuple[int, ...]:
        found, rows = [], min(_PIECE, patches)
        for times in range(HALVINGS, 0, -1):
            found.append(rows * halved(self.num_bands, times))
            rows = STRIDE * rows + 1
        return tuple(reversed(found))

    def pieces(self, tile: F32) -> Iterator[F32]:
        counts = [halved(len(tile), times) for times in range(1, HALVINGS + 1)]
        mean, gain = (self._host(name).reshape(-1) for name in (self.mean, self.gain))
        frames = ((tile - mean) * gain)[:, :, None]
        for first in range(0, counts[-1], _PIECE):
            spans = [(first, min(first + _PIECE, counts[-1]), counts[-1])]
            for count in reversed(counts[:-1]):
                before, last = _seen(*spans[0][:2])
                spans.insert(0, (max(0, before), min(last, count), count))
            self.spans[:] = spans
            around = _within(frames, 0, *_seen(*spans[0][:2]))
            yield windows(around).reshape(-1, KERNEL**2)

    def behind(self, number: int, hidden: F32) -> F32:
        places = hidden.reshape(-1, halved(self.num_bands, number + 1), self.channels)
        if number + 1 == HALVINGS:
            # a row of each frame: all bands of a channel, as the linear behind reads them
            return np.ascontiguousarray(places.transpose(0, 2, 1).reshape(len(places), -1))
        module = f"{self.prefix}.{_channelwise(number + 1)}"
        weight, bias = (self._host(f"{module}.{kind}") for kind in ("weight", "bias"))
        around = _within(places, self.spans[number][0], *_seen(*self.spans[number + 1][:2]))
        return _summed(around, weight.reshape(-1, KERNEL, KERNEL), bias.reshape(-1)).reshape(-1, self.channels)

    def _host(self, name: str) -> F32:
        if name not in self.held:
            raise InvariantError(f"{name} is read before it is held")
        return self.held[name]


def _channelwise(number: int) -> int:
    """What number a convolution of channels has among modules."""
    return 3 * number - 1


def _seen(first: int, last: int) -> tuple[int, int]:
    """Rows before a convolution that its rows first .. last - 1 see."""
    return STRIDE * first - 1, STRIDE * (last - 1) + KERNEL - 1


def _within(places: F32, start: int, first: int, last: int) -> F32:
    """Rows first .. last - 1, of which places begin at start; zeros where there are none, and beside all."""
    kept = places[max(0, first - start) : max(0, last - start)]
    before, behind = max(0, start - first), max(0, last - start - len(places))
    return np.pad(kept, ((before, behind), (1, 1), (0, 0)))


def _summed(padded: F32, weight: F32, bias: F32) -> F32:
    """[rows, bands, channels]: each channel by itself. Args: weight: [channels, frame, band]."""
    tall, wide = ((side - KERNEL) // STRIDE + 1 for side in padded.shape[:2])
    found = np.broadcast_to(bias, (tall, wide, len(bias))).astype(np.float32)
    for frame in range(KERNEL):
        for band in range(KERNEL):
            part = padded[frame : frame + 2 * tall : STRIDE, band : band + 2 * wide : STRIDE]
            found += part * weight[:, frame, band]
    return found
