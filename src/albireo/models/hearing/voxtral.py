"""Voxtral: Whisper's encoder of 30 s, silence included; four positions side by side, and two linears.

Found by vision/tower.py. A tile is 30 s, and one frame more, which is silent (whisper_layers.WhisperStem). Source:
Liu et al. 2025, Voxtral.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.qwen2_audio import DEFAULTS, PREFIX, PROJECTOR, WhisperPart
from albireo.models.hearing.settings import IGNORABLE, audio_fields, check_heads, num_bands
from albireo.models.hearing.whisper_layers import EPS, MAX_POSITIONS
from albireo.models.vision.encoder import mlp, norm
from albireo.models.vision.settings import activation, encoder_settings, text_width

#: What newer files call it.
_NAMES = {"hidden_act": "activation_function"}


@dataclass(frozen=True, slots=True)
class VoxtralTower(WhisperPart):
    """Implements tower.VisionTower. Fields: act: of the projector."""

    act: str

    def _states(self, b: GraphBuilder) -> Value:
        return norm(b, self.encoder, WhisperPart._states(self, b), f"{PREFIX}.layer_norm")

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        given = b.given(self.merge * c.hidden_size, 0)
        return pooled_states(b, mlp(b, c, given, PROJECTOR, (self.width, self.width), self.act, False))


def open_voxtral(data: Mapping[str, Any], dtype: str, where: str) -> VoxtralTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = audio_fields(data, where, ("voxtral_encoder",), _NAMES), Fields(data, where)
    encoder = encoder_settings(fields, dtype, DEFAULTS, eps=EPS, has_k_bias=False)
    positions = fields.integer("max_source_positions", 2, MAX_POSITIONS, 1500)
    bands = num_bands(fields)
    check_heads(fields, encoder)
    fields.refuse_unread(IGNORABLE, {})
    # as many positions as are as wide as the FFN: the files say no more
    merge, rest = divmod(encoder.intermediate_size, encoder.hidden_size)
    if rest or merge < 1 or positions % merge:
        fields.fail(
            "intermediate_size",
            encoder.intermediate_size,
            f"must be a multiple of hidden_size={encoder.hidden_size} that cuts {positions} positions evenly",
        )
    act = activation(whole, "projector_hidden_act", "gelu")
    return VoxtralTower(encoder, bands, positions, text_width(data, where, 3072), merge, act)
