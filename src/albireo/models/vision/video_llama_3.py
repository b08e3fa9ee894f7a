"""VideoLLaMA 3: SigLIP of tiles of any grid without learned positions, rotated by row and column, and two linears. Each
patch of a picture is a row.

Found by tower.py. Source: Zhang et al. 2025, VideoLLaMA 3, arXiv:2501.13106.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.vision.encoder import EncoderSettings, layers, linear, mlp, norm
from albireo.models.vision.patches import F32, grid_of, patch_rows
from albireo.models.vision.positions import axial_theta, places, rotations
from albireo.models.vision.settings import IGNORABLE, check_quarters, encoder_settings, text_width, vision_fields
from albireo.models.vision.siglip import DEFAULTS, NAMES
from albireo.models.vision.tower_inputs import HoldsNothing, InBlocks, TowerInputs

_VISION, _PROJECTOR = "vision_model", "projector.readout"


@dataclass(frozen=True, slots=True)
class VideoLlama3Tower(InBlocks, HoldsNothing):
    """Implements tower.VisionTower. Fields: theta: base of frequencies. width: of a row."""

    encoder: EncoderSettings
    theta: float
    width: int
    merge: int = 1

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        grid, of_axis = grid_of(height, width, c.patch_size), base_frequencies(self.theta, c.head_dim // 2)
        return TowerInputs((patch_rows(tile, c.patch_size),), grid, rotations(places(grid), of_axis, of_axis))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            name = f"{_VISION}.embeddings.patch_embedding"
            x = linear(b, c, b.given(c.patch_width, 0), name, c.hidden_size, "patches")
        x = layers(b, c, x, f"{_VISION}.encoder.layers", NAMES)
        with b.part("head"):
            return pooled_states(b, norm(b, c, x, f"{_VISION}.post_layernorm"))

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = mlp(b, c, b.given(c.hidden_size, 0), _PROJECTOR, (self.width, self.width), "gelu", parts=("0", "2"))
        return pooled_states(b, x)


def open_video_llama_3(data: Mapping[str, Any], dtype: str, where: str) -> VideoLlama3Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("video_llama_3_vision",))
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    check_quarters(fields, encoder)
    theta = axial_theta(fields)
    fields.refuse_unread(IGNORABLE, {})
    return VideoLlama3Tower(encoder, theta, text_width(data, where, 4096))
