"""Music Flamingo: Audio Flamingo 3, of whose rows a part is rotated by when they are heard, and in which 30 s.

Found by vision/tower.py. A tile has beside its bands a number: which of its sound it is. Rows are normed and rotated by
the host, before the linears. Source: Ghosh et al. 2025, Music Flamingo, as transformers computes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.audioflamingo3 import AudioFlamingo3Tower, open_audioflamingo3
from albireo.models.hearing.qwen2_audio import PREFIX, PROJECTOR, Qwen2AudioTower, WhisperPart
from albireo.models.hearing.stem import Stem
from albireo.models.hearing.whisper_layers import STRIDE, WhisperStem
from albireo.models.vision.encoder import mlp
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.tower_inputs import TowerInputs

_WEIGHT, _BIAS = f"{PREFIX}.layer_norm.weight", f"{PREFIX}.layer_norm.bias"


@dataclass(frozen=True, slots=True)
class _Stem(WhisperStem):
    """Fields: told: of the tile that is computed, which of its sound it is."""

    told: list[float] = field(default_factory=list)

    def pieces(self, tile: F32) -> Iterator[F32]:
        self.told[:] = tile[:1, -1].tolist()
        yield from WhisperStem.pieces(self, np.ascontiguousarray(tile[:, :-1]))

    def behind(self, number: int, hidden: F32) -> F32:
        rows = WhisperStem.behind(self, number, hidden)
        return np.concatenate([rows, np.full((len(rows), 1), self.told[0], np.float32)], axis=1)


@dataclass(frozen=True, slots=True)
class MusicFlamingoTower(AudioFlamingo3Tower):
    """Implements tower.VisionTower. Fields: theta: base of frequencies, and what times are a part of. turned: numbers
    of a row that either kind of time rotates. step: seconds of a frame. held: of host_tensors."""

    theta: float
    turned: int
    step: float
    held: dict[str, F32] = field(default_factory=dict)

    host_tensors = (_WEIGHT, _BIAS)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        for name in self.host_tensors:
            count = self.encoder.hidden_size
            if tensors[name].size != count:
                raise WeightMismatch(f"{name} has shape {tensors[name].shape}; wanted {count} numbers")
        self.held.update({name: tensors[name].reshape(-1) for name in self.host_tensors})

    @property
    def stem(self) -> Stem:
        return _Stem(self.encoder, self.num_bands, STRIDE * self.num_positions, PREFIX)

    def patches(self, height: int, width: int) -> int:
        if width != self.num_bands + 1:
            raise InvariantError(
                f"{height} frames of {width} bands; this tower hears those of {self.num_bands}, and one number more"
            )
        return WhisperPart.patches(self, height, self.num_bands)

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((np.ascontiguousarray(tile[:, :-1]),), (len(tile), int(tile[0, -1])))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        if not self.held:
            raise InvariantError(f"{_WEIGHT} is read before it is held")
        rows = Qwen2AudioTower.joined(self, hidden, grid).astype(np.float64)
        centered = rows - rows.mean(axis=1, keepdims=True)
        spread = np.sqrt((centered**2).mean(axis=1, keepdims=True) + self.encoder.eps)
        rows = centered / spread * self.held[_WEIGHT] + self.held[_BIAS]
        angles, both = self._angles(len(rows), grid[1]), 2 * self.turned
        cos, sin, first, second = np.cos(angles), np.sin(angles), rows[:, :both:2], rows[:, 1:both:2]
        turned = np.stack([first * cos - second * sin, second * cos + first * sin], axis=-1).reshape(len(rows), both)
        return np.concatenate([turned, rows[:, both:]], axis=1).astype(np.float32)

    def _angles(self, count: int, number: int) -> NDArray[np.float64]:
        """[count, turned] of pairs of neighbours: those of the window, then those of the row within it."""
        speeds = self.theta ** (-np.arange(0, self.turned, 2) / self.turned)
        rows, places = np.arange(count), self.num_positions // self.merge
        of_window = np.tile(number / self.theta * speeds, (count, 1))
        of_row = (rows / self.theta * 2 * math.pi)[:, None] * speeds
        seconds = (number * places + rows) * self.step * STRIDE * self.merge
        return np.asarray(np.concatenate([of_window, of_row], axis=1) * (-2 * math.pi * seconds)[:, None])

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        given = b.given(c.hidden_size, 0)
        return pooled_states(b, mlp(b, c, given, PROJECTOR, (self.width, self.width), self.act, self.has_bias))


def open_musicflamingo(data: Mapping[str, Any], dtype: str, where: str) -> MusicFlamingoTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    audio = data.get("audio_config")
    if isinstance(audio, Mapping) and audio.get("model_type") == "musicflamingo_encoder":
        # as it was first published
        data = {**data, "audio_config": {**audio, "model_type": "audioflamingo3_encoder"}}
    tower, whole = open_audioflamingo3(data, dtype, where), Fields(data, where)
    rope = Fields(whole.table("rope_parameters") or {}, f"{where}: rope_parameters")
    rope.one_of("rope_type", ("default",), "default")
    theta, share = rope.number("rope_theta", 2.0, 1e6, 1200.0), rope.number("partial_rotary_factor", 0.0, 0.5, 0.2)
    rope.refuse_unread((), {})
    turned = int(share * tower.encoder.hidden_size)
    if turned < 2 or turned % 2:
        rope.fail("partial_rotary_factor", share, f"must leave an even part of {tower.encoder.hidden_size} numbers")
    step = whole.number("audio_frame_step", 1e-4, 1.0, 0.01)
    fields = (tower.encoder, tower.num_bands, tower.num_positions, tower.width, tower.merge, tower.act, tower.has_bias)
    return MusicFlamingoTower(*fields, theta, turned, step)
