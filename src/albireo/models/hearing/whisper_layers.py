"""Whisper's encoder as graph-building functions: two convolutions in time, layers in which all positions see each
other. Called by the families beside it, each of which puts something else behind.

Source: Radford et al. 2022, Robust Speech Recognition via Large-Scale Weak Supervision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.feed_forward import activated
from albireo.models.hearing.stem import KERNEL, SeesNothing, side_by_side
from albireo.models.vision.encoder import EncoderSettings, Names, convolution, layers, linear
from albireo.models.vision.patches import F32

#: Frames that the second convolution goes on by.
STRIDE = 2
EPS = 1e-5
#: Far more than any encoder gives of a sound.
MAX_POSITIONS = 2**16
NAMES = Names("self_attn_layer_norm", out="self_attn.out_proj", ffn_norm="final_layer_norm", up="fc1", down="fc2")


def convolved(b: GraphBuilder, c: EncoderSettings, width: int, name: str) -> Value:
    """One convolution of given rows, each of which has three frames of so many numbers."""
    x = linear(b, c, b.given(KERNEL * width, 0), name, c.hidden_size, "frames")
    with b.part("act"):
        return activated(b, x, "gelu")


def first_convolution(c: EncoderSettings, num_bands: int, prefix: str) -> Graph:
    """Frames of bands -> frames of hidden numbers. Args: prefix: of the encoder's tensors."""
    return convolution(c, KERNEL * num_bands, f"{prefix}.conv1", c.hidden_size, "gelu")


def layers_of(
    b: GraphBuilder, c: EncoderSettings, num_positions: int | None, prefix: str, names: Names = NAMES
) -> Value:
    """The second convolution, positions, and layers, of given rows. Args: num_positions: that have an embedding; None:
    layers rotate instead."""
    with b.part("embed"):
        x = convolved(b, c, c.hidden_size, f"{prefix}.conv2")
        if num_positions is not None:
            with b.part("positions"):
                shape = num_positions, c.hidden_size
                x = b.add(x, b.embed(b.positions, b.weight(f"{prefix}.embed_positions.weight", shape, "float32")))
    x = layers(b, c, x, f"{prefix}.layers", names)
    return x


@dataclass(frozen=True, slots=True)
class WhisperStem(SeesNothing):
    """Implements stem.Stem. A tile is a piece: what is heard, and one frame more, which its last row sees, too.

    Fields: num_frames: most of what is heard.
    """

    encoder: EncoderSettings
    num_bands: int
    num_frames: int
    prefix: str

    def graphs(self) -> tuple[Graph, ...]:
        return (first_convolution(self.encoder, self.num_bands, self.prefix),)

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return (self.num_frames,)

    def pieces(self, tile: F32) -> Iterator[F32]:
        yield side_by_side(tile, 1)[: len(tile) - 1]

    def behind(self, number: int, hidden: F32) -> F32:
        return side_by_side(hidden, STRIDE)
