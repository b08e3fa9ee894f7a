"""Said: what a transducer has heard of what it said so far: an LSTM of its tokens, and a linear of what that gives.

Opened by api/media/hearing.py, run by execution/writing.py, a token at a time. A layer is a linear of what it reads and
of what it gave before; what gates do with that is a few hundred numbers, and the host's. Tensors have the names that
transformers gives them. Sources: Graves 2012, Sequence Transduction with Recurrent Neural Networks; Hochreiter and
Schmidhuber 1997, Long Short-Term Memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from albireo.errors import WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.patches import F32

_TABLE = "decoder.embedding.weight"
_LSTM, _PROJECTOR = "decoder.lstm", "decoder.decoder_projector"


@dataclass(frozen=True, slots=True)
class States:
    """Fields: hidden, cell: [layers, width], of each layer."""

    hidden: F32
    cell: F32


@dataclass(slots=True)
class Said:
    """Fields: width: of all layers. vocab_size: tokens that may be said, the blank among them."""

    width: int
    num_layers: int
    vocab_size: int
    dtype: str
    held: dict[str, F32] = field(default_factory=dict)

    host_tensors = (_TABLE,)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        """Keep host_tensors. Raises: WeightMismatch for one of another shape than config.json implies."""
        if tensors[_TABLE].shape != (self.vocab_size, self.width):
            raise WeightMismatch(f"{_TABLE} has shape {tensors[_TABLE].shape}; wanted {(self.vocab_size, self.width)}")
        self.held[_TABLE] = tensors[_TABLE]

    def graphs(self) -> tuple[Graph, ...]:
        """Of each layer: what it reads and what it gave before, [R, width] each -> its four gates, [R, 4 * width];
        then of the linear behind."""
        return *(self._layer(number) for number in range(self.num_layers)), self._projector()

    def _layer(self, number: int) -> Graph:
        b, width = GraphBuilder(), self.width
        with b.part(f"layers.{number}"):
            parts = []
            for place, kind in enumerate(("ih", "hh")):
                weight = b.weight(f"{_LSTM}.weight_{kind}_l{number}", (4 * width, width), self.dtype)
                bias = b.weight(f"{_LSTM}.bias_{kind}_l{number}", (4 * width,), "float32")
                parts.append(b.linear(b.cast(b.given(width, place), self.dtype), weight, bias))
            x = b.add(*parts)
        return pooled_states(b, x)

    def _projector(self) -> Graph:
        b, width = GraphBuilder(), self.width
        with b.part("projector"):
            weight = b.weight(f"{_PROJECTOR}.weight", (width, width), self.dtype)
            x = b.linear(b.cast(b.given(width, 0), self.dtype), weight, b.weight(f"{_PROJECTOR}.bias", (width,),
                                                                                "float32"))  # fmt: skip
        return pooled_states(b, x)

    def nothing(self) -> States:
        """Before anything was said."""
        return States(*(np.zeros((self.num_layers, self.width), np.float32) for _ in range(2)))

    def embedded(self, token_id: int) -> F32:
        """[1, width] that the first layer reads."""
        return np.asarray(self.held[_TABLE][token_id : token_id + 1])

    def behind(self, gates: F32, cell: F32) -> tuple[F32, F32]:
        """What a layer gives, and keeps. Args: gates: [1, 4 * width]: which numbers come in, stay, are new, go out.
        cell: [width], that it kept before."""
        into, kept, new, out = np.split(gates[0], 4)
        cell = _sigmoid(kept) * cell + _sigmoid(into) * np.tanh(new)
        return _sigmoid(out) * np.tanh(cell), cell


def _sigmoid(x: F32) -> F32:
    # without an overflow where x is far below 0
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)), np.float32)
