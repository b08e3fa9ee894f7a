"""Audio Flamingo 3: Whisper's encoder of what is heard alone, pairs of positions as their mean, and two linears.

Found by vision/tower.py. A tile is what is heard of 30 s, and one frame more (whisper_layers.WhisperStem). Source: Goel
et al. 2025, Audio Flamingo 3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.qwen2_audio import DEFAULTS, PREFIX, PROJECTOR, Qwen2AudioTower
from albireo.models.hearing.settings import IGNORABLE, audio_fields, check_heads, num_bands
from albireo.models.hearing.whisper_layers import EPS, MAX_POSITIONS
from albireo.models.vision.encoder import mlp, norm
from albireo.models.vision.settings import activation, encoder_settings, text_width

_NAMES = {"hidden_act": "activation_function"}


@dataclass(frozen=True, slots=True)
class AudioFlamingo3Tower(Qwen2AudioTower):
    """Implements tower.VisionTower. Fields: act: of the projector. has_bias: its linears have one."""

    act: str
    has_bias: bool

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = norm(b, c, b.given(c.hidden_size, 0), f"{PREFIX}.layer_norm")
        return pooled_states(b, mlp(b, c, x, PROJECTOR, (self.width, self.width), self.act, self.has_bias))


def open_audioflamingo3(data: Mapping[str, Any], dtype: str, where: str) -> AudioFlamingo3Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = audio_fields(data, where, ("audioflamingo3_encoder",), _NAMES), Fields(data, where)
    encoder = encoder_settings(fields, dtype, DEFAULTS, eps=EPS, has_k_bias=False)
    check_heads(fields, encoder)
    positions = fields.integer("max_source_positions", 2, MAX_POSITIONS, 1500)
    bands = num_bands(fields)
    fields.refuse_unread(IGNORABLE, {})
    act, has_bias = activation(whole, "projector_hidden_act", "gelu"), whole.flag("projector_bias", True)
    return AudioFlamingo3Tower(encoder, bands, positions, text_width(data, where, 3584), 2, act, has_bias)
