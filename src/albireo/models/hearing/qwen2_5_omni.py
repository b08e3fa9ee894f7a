"""Qwen2.5-Omni: Whisper's layers, which see two seconds at once; pairs of positions as their mean, and one linear.

Found by vision/tower.py. A chunk is what convolutions and layers see at once, and positions begin anew with each. A
tile is several of them, each a sequence of its own. Source: Xu et al. 2025, Qwen2.5-Omni Technical Report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.positions import sines
from albireo.models.hearing.qwen2_audio import DEFAULTS, PREFIX, means
from albireo.models.hearing.settings import IGNORABLE, OF_WHISPER, audio_fields, num_bands
from albireo.models.hearing.stem import Stem, side_by_side
from albireo.models.hearing.whisper_layers import EPS, MAX_POSITIONS, NAMES, STRIDE, WhisperStem, convolved
from albireo.models.vision.encoder import EncoderSettings, layers, linear, norm
from albireo.models.vision.patches import F32, Grid, Sequences
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings, text_width
from albireo.models.vision.tower_inputs import HoldsNothing, MergesInTime, TowerInputs

#: Chunks of a tile: what is computed at once.
CHUNKS = 4


@dataclass(frozen=True, slots=True)
class _Stem(WhisperStem):
    """A piece is a chunk, around which there is nothing."""

    def pieces(self, tile: F32) -> Iterator[F32]:
        for first in range(0, len(tile), self.num_frames):
            yield side_by_side(tile[first : first + self.num_frames], 1)


@dataclass(frozen=True, eq=False)
class Qwen25OmniTower(MergesInTime, HoldsNothing):
    """Implements tower.VisionTower. Fields: chunk: frames that are seen at once. width: of rows."""

    encoder: EncoderSettings
    num_bands: int
    chunk: int
    width: int
    merge: int = field(default=2, init=False)

    #: Rows for the beginning and the end of a sound, which templates write as tokens.
    unread_tensors = (f"{PREFIX}.audio_bos_eos_token.weight",)

    @property
    def stem(self) -> Stem:
        return _Stem(self.encoder, self.num_bands, self.chunk, PREFIX)

    def patches(self, height: int, width: int) -> int:
        if width != self.num_bands or not STRIDE < height <= self.chunk * CHUNKS:
            raise InvariantError(
                f"{height} frames of {width} bands; this tower hears {STRIDE + 1} to {self.chunk * CHUNKS} of "
                f"{self.num_bands}"
            )
        return -(-height // STRIDE)

    def sequences(self, height: int, width: int) -> Sequences:
        whole, rest = divmod(self.patches(height, width), self.chunk // STRIDE)
        return ((*(self.chunk // STRIDE,) * whole, *((rest,) if rest else ())),)

    def most_sequences(self, patches: int) -> int:
        return -(-patches // (self.chunk // STRIDE))

    def inputs(self, tile: F32) -> TowerInputs:
        # anew with each chunk
        places = np.resize(self._places, (len(tile), self.encoder.hidden_size))
        return TowerInputs((tile, places), (len(tile), 1))

    @cached_property
    def _places(self) -> F32:
        return sines(self.chunk // STRIDE, self.encoder.hidden_size)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = convolved(b, c, c.hidden_size, f"{PREFIX}.conv2")
            with b.part("positions"):
                x = b.add(x, b.given(c.hidden_size, 1))
        x = layers(b, c, x, f"{PREFIX}.layers", NAMES)
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        # of chunks all but the last have whole pairs
        return means(hidden, self.merge)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = norm(b, c, b.given(c.hidden_size, 0), f"{PREFIX}.ln_post")
        return pooled_states(b, linear(b, c, x, f"{PREFIX}.proj", self.width, "up"))


def open_qwen2_5_omni(data: Mapping[str, Any], dtype: str, where: str) -> Qwen25OmniTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = audio_fields(data, where, ("qwen2_5_omni_audio_encoder",), OF_WHISPER)
    encoder = encoder_settings(fields, dtype, DEFAULTS, eps=EPS, has_k_bias=False)
    half = fields.integer("n_window", 2, MAX_POSITIONS, 100)
    positions = fields.integer("max_source_positions", 1, MAX_POSITIONS, 1500)
    bands, width = num_bands(fields), text_width(data, where, 3584)
    said = fields.integer("output_dim", 1, MAX_WIDTH, width)
    if half % 2 or half > positions:
        fields.fail("n_window", half, f"must be a multiple of 2, and at most max_source_positions={positions}")
    if said != width:
        fields.fail("output_dim", said, f"must be hidden_size={width} of the text part")
    fields.refuse_unread(IGNORABLE | {"num_hidden_layers"}, {})
    return Qwen25OmniTower(encoder, bands, 2 * half, width)
