"""Qwen2-Audio: Whisper's encoder of what is heard alone, pairs of positions as their mean, and one linear.

Found by vision/tower.py. A tile is a sound of up to 30 s, and one frame more (whisper_layers.WhisperStem). Source: Chu
et al. 2024, Qwen2-Audio Technical Report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.settings import IGNORABLE, OF_WHISPER, audio_fields, num_bands
from albireo.models.hearing.stem import Stem
from albireo.models.hearing.whisper_layers import EPS, MAX_POSITIONS, STRIDE, WhisperStem, layers_of
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, linear, norm
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.settings import encoder_settings, text_width
from albireo.models.vision.tower_inputs import HoldsNothing, MergesInTime, TowerInputs

PREFIX, PROJECTOR = "audio_tower", "multi_modal_projector"
DEFAULTS = sizes(1280, 5120, 32, 20, hidden_act="gelu", patch_size=1)


@dataclass(frozen=True, slots=True)
class WhisperPart(MergesInTime, HoldsNothing):
    """Of a tower whose layers are Whisper's: up to what their rows become; see tower.VisionTower.

    Fields: num_positions: most that a sound has. merge: of which so many become a row. width: of rows.
    """

    encoder: EncoderSettings
    num_bands: int
    num_positions: int
    width: int
    merge: int

    @property
    def stem(self) -> Stem:
        return WhisperStem(self.encoder, self.num_bands, STRIDE * self.num_positions, PREFIX)

    def patches(self, height: int, width: int) -> int:
        """Positions of a tile: half its frames, but for the last."""
        positions, odd = divmod(height, STRIDE)
        if width != self.num_bands or not odd or not self.merge <= positions <= self.num_positions:
            raise InvariantError(
                f"{height} frames of {width} bands; this tower hears {STRIDE * self.merge + 1} to "
                f"{STRIDE * self.num_positions + 1} of {self.num_bands}, an odd number"
            )
        return positions

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1))

    def graph(self) -> Graph:
        b = GraphBuilder()
        return pooled_states(b, self._states(b))

    def _states(self, b: GraphBuilder) -> Value:
        return layers_of(b, self.encoder, self.num_positions, PREFIX)


def means(hidden: F32, merge: int) -> F32:
    """[n, E] of hidden [T, E]: of every merge positions, but for what is left at the end."""
    parts = hidden[: len(hidden) // merge * merge].reshape(-1, merge, hidden.shape[1])
    return np.ascontiguousarray(parts.mean(axis=1, dtype=np.float32))


@dataclass(frozen=True, slots=True)
class Qwen2AudioTower(WhisperPart):
    """Implements tower.VisionTower."""

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return means(hidden, self.merge)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = norm(b, c, b.given(c.hidden_size, 0), f"{PREFIX}.layer_norm")
        return pooled_states(b, linear(b, c, x, f"{PROJECTOR}.linear", self.width, "up"))


def open_qwen2_audio(data: Mapping[str, Any], dtype: str, where: str) -> Qwen2AudioTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = audio_fields(data, where, ("qwen2_audio_encoder",), OF_WHISPER)
    encoder = encoder_settings(fields, dtype, DEFAULTS, eps=EPS, has_k_bias=False)
    positions = fields.integer("max_source_positions", 2, MAX_POSITIONS, 1500)
    bands = num_bands(fields)
    fields.refuse_unread(IGNORABLE | keys("num_hidden_layers"), {})
    return Qwen2AudioTower(encoder, bands, positions, text_width(data, where, 4096), 2)
