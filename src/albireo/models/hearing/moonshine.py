"""Moonshine's encoder as a tower: what its decoder listens to, of a sound as long as it is.

Found by vision/tower.py. A tile is a sound: samples are its rows. Three convolutions go on by 64, 3 and 2; behind the
first, all numbers of a sound have one mean and one variance. Layers rotate a part of each head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.positions import turns
from albireo.models.hearing.stem import SeesNothing, Stem, seen_in_time
from albireo.models.settings.class_sizes import sizes
from albireo.models.speech.moonshine import KERNELS, RATE, SECONDS, STRIDES, num_rows
from albireo.models.vision.encoder import EncoderSettings, Names, layers, linear, norm
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import encoder_settings
from albireo.models.vision.tower_inputs import GivesRowsOnce, RowAPatch, TowerInputs

_PREFIX, _EPS = "encoder", 1e-5
_GAIN, _SHIFT = f"{_PREFIX}.groupnorm.weight", f"{_PREFIX}.groupnorm.bias"
_KEYS = {
    "num_hidden_layers": "encoder_num_hidden_layers",
    "num_attention_heads": "encoder_num_attention_heads",
    "num_key_value_heads": "encoder_num_key_value_heads",
    "hidden_act": "encoder_hidden_act",
}
_DEFAULTS = sizes(288, 1152, 6, 8, hidden_act="gelu", patch_size=1)
_NAMES = Names()


@dataclass(frozen=True, slots=True)
class _Stem(SeesNothing):
    """Implements stem.Stem. A tile is a piece. Fields: gain, shift: [E], of the norm behind the first convolution."""

    encoder: EncoderSettings
    gain: F32 | None
    shift: F32 | None

    def graphs(self) -> tuple[Graph, ...]:
        return self._graph(0), self._graph(1)

    def _graph(self, number: int) -> Graph:
        b, width = GraphBuilder(), self.encoder.hidden_size
        with b.part("embed"):
            given = b.given(KERNELS[number] * (1, width)[number], 0)
            name, has_bias = f"{_PREFIX}.conv{number + 1}", number > 0
            x = linear(b, self.encoder, given, name, width * (1 + number), "frames", has_bias)
            with b.part("act"):
                x = activated(b, x, ("tanh", "gelu")[number])
        return pooled_states(b, x)

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return num_rows(RATE * SECONDS, 1), num_rows(RATE * SECONDS, 2)

    def pieces(self, tile: F32) -> Iterator[F32]:
        yield seen_in_time(tile, KERNELS[0], STRIDES[0])

    def behind(self, number: int, hidden: F32) -> F32:
        if number > 0:
            return seen_in_time(hidden, KERNELS[2], STRIDES[2])
        if self.gain is None or self.shift is None:
            raise InvariantError(f"{_GAIN} is read before it is held")
        every = hidden.astype(np.float64)
        normed = (every - every.mean()) / np.sqrt(every.var() + _EPS)
        return seen_in_time((normed * self.gain + self.shift).astype(np.float32), KERNELS[1], STRIDES[1])


@dataclass(slots=True)
class MoonshineTower(RowAPatch, GivesRowsOnce):
    """Implements tower.VisionTower. Fields: theta: base of frequencies. gain, shift: see _Stem; once held."""

    encoder: EncoderSettings
    theta: float
    gain: F32 | None = None
    shift: F32 | None = None

    host_tensors = (_GAIN, _SHIFT)
    #: What the program reads that listens.
    unread_tensors = ("model.decoder.*",)
    largest = (RATE * SECONDS, 1)

    @property
    def num_positions(self) -> int:
        """Of the longest sound."""
        return num_rows(RATE * SECONDS)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        for name in self.host_tensors:
            if tensors[name].shape != (self.encoder.hidden_size,):
                raise WeightMismatch(f"{name} has shape {tensors[name].shape}; wanted ({self.encoder.hidden_size},)")
        self.gain, self.shift = tensors[_GAIN], tensors[_SHIFT]

    @property
    def stem(self) -> Stem:
        return _Stem(self.encoder, self.gain, self.shift)

    def patches(self, height: int, width: int) -> int:
        if width != 1 or not num_rows(height) >= 1 or height > RATE * SECONDS:
            raise InvariantError(f"{height} samples of {width} channels; this encoder hears up to {RATE * SECONDS}")
        return num_rows(height)

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1), turns(len(tile), self.theta, self.encoder))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = linear(b, c, b.given(KERNELS[2] * 2 * c.hidden_size, 0), f"{_PREFIX}.conv3", c.hidden_size, "frames")
            with b.part("act"):
                x = activated(b, x, "gelu")
        x = layers(b, c, x, f"{_PREFIX}.layers", _NAMES)
        return pooled_states(b, x)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        return pooled_states(b, norm(b, c, b.given(c.hidden_size, 0), f"{_PREFIX}.layer_norm"))


def open_moonshine(data: Mapping[str, Any], dtype: str, where: str) -> MoonshineTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = Fields(data, where, _KEYS)
    rope = Fields(fields.table("rope_parameters") or fields.table("rope_scaling") or {}, f"{where}: rope_parameters")
    if rope.text("rope_type", rope.text("type", "default")) != "default":
        rope.unsupported("rope_type", rope.raw("rope_type") or rope.raw("type"), "supported: default")
    share = rope.number("partial_rotary_factor", 0.0, 1.0, fields.number("partial_rotary_factor", 0.0, 1.0, 0.9))
    theta = rope.number("rope_theta", 1.0, 1e12, fields.number("rope_theta", 1.0, 1e12, 10000.0))
    encoder = encoder_settings(
        fields, dtype, _DEFAULTS, eps=_EPS, turned_share=share, turns_neighbours=True, is_bare=True
    )
    if fields.integer("num_key_value_heads", 1, 2**10, encoder.num_heads) != encoder.num_heads:
        fields.unsupported("num_key_value_heads", fields.raw("num_key_value_heads"), f"supported: {encoder.num_heads}")
    return MoonshineTower(encoder, theta)
