"""GLM-ASR: Whisper's convolutions, layers that rotate a part of each head, four positions side by side, two linears.

Found by vision/tower.py. A tile is what is heard of 30 s, and the frames behind it that hear its end, too; silence up
to the 30 s is filled up here, since the layers see it. Source: Z.ai 2025, GLM-ASR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.positions import turns
from albireo.models.hearing.qwen2_audio import DEFAULTS, PREFIX, PROJECTOR, WhisperPart
from albireo.models.hearing.settings import IGNORABLE, audio_fields, check_heads, num_bands
from albireo.models.hearing.stem import Stem, side_by_side
from albireo.models.hearing.whisper_layers import EPS, MAX_POSITIONS, STRIDE, WhisperStem, layers_of
from albireo.models.vision.encoder import Names, mlp, norm
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import activation, encoder_settings, text_width
from albireo.models.vision.tower_inputs import TowerInputs

#: Frames behind what is heard of which the last is silent: a frame is as long as two and a half steps.
BEHIND = 3
_MERGE = 4
_THETAS = (1.0, 1e12)
_NAMES = Names()


@dataclass(frozen=True, slots=True)
class _FilledStem(WhisperStem):
    """Of a tile that ends in silence, all 30 s."""

    def pieces(self, tile: F32) -> Iterator[F32]:
        whole = np.pad(tile, ((0, max(0, self.num_frames - len(tile))), (0, 0)), mode="edge")
        yield side_by_side(whole[: self.num_frames], 1)


@dataclass(frozen=True, slots=True)
class GlmAsrTower(WhisperPart):
    """Implements tower.VisionTower. Fields: act: of the projector. theta: base of frequencies."""

    act: str
    theta: float

    @property
    def stem(self) -> Stem:
        return _FilledStem(self.encoder, self.num_bands, STRIDE * self.num_positions, PREFIX)

    def patches(self, height: int, width: int) -> int:
        most = STRIDE * self.num_positions + BEHIND
        if width != self.num_bands or not BEHIND < height <= most:
            raise InvariantError(
                f"{height} frames of {width} bands; this tower hears {BEHIND + 1} to {most} of {self.num_bands}"
            )
        return self.num_positions

    def rows(self, height: int, width: int) -> int:
        self.patches(height, width)
        return -(-(height - BEHIND) // STRIDE) // self.merge

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1), turns(len(tile), self.theta, self.encoder))

    def _states(self, b: GraphBuilder) -> Value:
        x = layers_of(b, self.encoder, None, PREFIX, _NAMES)
        return norm(b, self.encoder, x, f"{PREFIX}.norm")

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = mlp(b, c, b.given(self.merge * c.hidden_size, 0), PROJECTOR, (2 * self.width, self.width), self.act)
        return pooled_states(b, x)


def open_glmasr(data: Mapping[str, Any], dtype: str, where: str) -> GlmAsrTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = audio_fields(data, where, ("glmasr_encoder",)), Fields(data, where)
    rope = Fields(fields.table("rope_parameters") or {}, f"{fields.where}: rope_parameters")
    rope.one_of("rope_type", ("default",), "default")
    share = rope.number("partial_rotary_factor", 0.0, 1.0, fields.number("partial_rotary_factor", 0.0, 1.0, 0.5))
    encoder = encoder_settings(fields, dtype, DEFAULTS, eps=EPS, has_k_bias=False, turned_share=share)
    check_heads(fields, encoder)
    positions = fields.integer("max_position_embeddings", _MERGE, MAX_POSITIONS, 1500)
    if positions % _MERGE or encoder.intermediate_size != _MERGE * encoder.hidden_size:
        fields.fail(
            "intermediate_size",
            encoder.intermediate_size,
            f"must be {_MERGE} * hidden_size, and max_position_embeddings={positions} be a multiple of {_MERGE}",
        )
    bands, theta = num_bands(fields), rope.number("rope_theta", *_THETAS, 10000.0)
    rope.refuse_unread((), {})
    fields.refuse_unread(IGNORABLE | keys("attention_bias mlp_bias"), {})
    act = activation(whole, "projector_hidden_act", "gelu")
    return GlmAsrTower(encoder, bands, positions, text_width(data, where, 2048), _MERGE, act, theta)
