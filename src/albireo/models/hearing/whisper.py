"""Whisper's encoder as a tower: what its decoder listens to.

Found by vision/tower.py. A tile is a sound: frames are its rows, bands their numbers. The first convolution is the
tower's program, and what lies behind its neighbours' the projector's: between the two, rows of three frames are put
side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.stem import side_by_side
from albireo.models.hearing.whisper_layers import EPS, STRIDE, first_convolution, layers_of
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.speech.whisper import MAX_SOUND_POSITIONS
from albireo.models.vision.encoder import EncoderSettings, norm
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.settings import MAX_HEADS, MAX_WIDTH, activation
from albireo.models.vision.tower_inputs import HoldsNothing, TowerInputs


@dataclass(frozen=True, slots=True)
class WhisperTower(HoldsNothing):
    """Implements tower.VisionTower. Fields: num_bands: of a frame. num_positions: that a sound gives."""

    encoder: EncoderSettings
    num_bands: int
    num_positions: int

    #: What the program reads that listens.
    unread_tensors = ("model.decoder.*",)

    def most_rows(self, patches: int) -> int:
        return patches // STRIDE

    @property
    def largest(self) -> tuple[int, int]:
        """Frames of a sound, and bands of each: there is no other size."""
        return STRIDE * self.num_positions, self.num_bands

    def patches(self, height: int, width: int) -> int:
        if (height, width) != self.largest:
            frames, bands = self.largest
            raise InvariantError(f"{height} frames of {width} bands; this encoder hears {frames} of {bands}")
        return height

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) // STRIDE

    def inputs(self, tile: F32) -> TowerInputs:
        self.patches(*tile.shape)
        return TowerInputs((side_by_side(tile, 1),), (len(tile), 1))

    def graph(self) -> Graph:
        return first_convolution(self.encoder, self.num_bands, "encoder")

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return side_by_side(hidden, STRIDE)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = layers_of(b, c, self.num_positions, "encoder")
        return pooled_states(b, norm(b, c, x, "encoder.layer_norm"))


def open_whisper(data: Mapping[str, Any], dtype: str, where: str) -> WhisperTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = Fields(data, where)
    width = fields.integer("d_model", 1, MAX_WIDTH, 384)
    heads = fields.integer("encoder_attention_heads", 1, MAX_HEADS, 6)
    if width % heads or (width // heads) % 2:
        fields.fail("encoder_attention_heads", heads, f"must cut d_model={width} into even heads")
    encoder = EncoderSettings(
        width,
        fields.integer("encoder_ffn_dim", 1, 16 * MAX_WIDTH, 1536),
        fields.integer("encoder_layers", 1, MAX_LAYERS, 4),
        heads,
        1,
        activation(fields, "activation_function", "gelu"),
        EPS,
        dtype,
        has_k_bias=False,
    )
    positions = fields.integer("max_source_positions", 1, MAX_SOUND_POSITIONS, 1500)
    return WhisperTower(encoder, fields.integer("num_mel_bins", 1, MAX_WIDTH, 80), positions)
