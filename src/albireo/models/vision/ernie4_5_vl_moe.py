"""ERNIE 4.5 VL: patches of any grid rotated by row and column, blocks of 2 x 2 side by side, an MLP of these, another
that reads two frames, of a picture two that are alike, and a linear with a norm behind it.

Found by tower.py. Patches are in the order of blocks, so that what becomes one row lies side by side.
Source: Baidu 2025, ERNIE 4.5 Technical Report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.text_part import text_keys
from albireo.models.vision.encoder import IN_ONE, EncoderSettings, layers, linear, mlp, norm
from albireo.models.vision.patches import F32, Grid, grid_of, in_blocks, patch_rows
from albireo.models.vision.positions import axial_theta, places, rotations
from albireo.models.vision.settings import IGNORABLE, check_quarters, encoder_settings, text_width, vision_fields
from albireo.models.vision.tower_inputs import HoldsNothing, InBlocks, TowerInputs

_KEYS = {
    "num_channels": "in_channels",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "layer_norm_eps": "rms_norm_eps",
}
_DEFAULTS = sizes(1280, 5120, 32, 16, patch_size=14, hidden_act="quick_gelu", layer_norm_eps=1e-6)
_VISION, _RESAMPLER = "vision_model", "resampler_model"


@dataclass(frozen=True, slots=True)
class Ernie45VlTower(InBlocks, HoldsNothing):
    """Implements tower.VisionTower. Fields: merge: patches on a side of what becomes one row. theta: base of
    frequencies. eps: of the norm of rows. width: of a row."""

    encoder: EncoderSettings
    merge: int
    theta: float
    eps: float
    width: int

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid, of_axis = grid_of(height, width, c.patch_size), base_frequencies(self.theta, c.head_dim // 2)
        turns = in_blocks(rotations(places(grid), of_axis, of_axis), grid, self.merge)
        return TowerInputs((in_blocks(patch_rows(tile, c.patch_size), grid, self.merge),), grid, turns)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            patches = b.given(c.patch_width, 0)
            x = linear(b, c, patches, f"{_VISION}.patch_embed.proj", c.hidden_size, "patches", False)
        x = layers(b, c, x, f"{_VISION}.blocks", IN_ONE)
        with b.part("head"):
            return pooled_states(b, norm(b, c, x, f"{_VISION}.ln"))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden.reshape(len(hidden) // self.merge**2, -1)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = self._mlp(b, b.given(c.hidden_size * self.merge**2, 0), "spatial")
        with b.part("frames"):
            x = b.join_heads(x, x, 1)
        x = linear(b, c, self._mlp(b, x, "temporal"), f"{_RESAMPLER}.mlp", self.width, "out")
        return pooled_states(b, norm(b, replace(c, is_rms=True), x, f"{_RESAMPLER}.after_norm", self.eps))

    def _mlp(self, b: GraphBuilder, x: Value, part: str) -> Value:
        c, name, wide = self.encoder, f"{_RESAMPLER}.{part}_linear", self.encoder.hidden_size * self.merge**2
        with b.part(part):
            return norm(b, c, mlp(b, c, x, name, (wide, wide), "gelu", parts=("0", "2")), f"{name}.3")


def open_ernie4_5_vl_moe(data: Mapping[str, Any], dtype: str, where: str) -> Ernie45VlTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("ernie4_5_vl_moe_vision",), _KEYS)
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    check_quarters(fields, encoder)
    merge, theta = fields.integer("spatial_merge_size", 1, 16, 2), axial_theta(fields)
    fields.refuse_unread(IGNORABLE, {"temporal_merge_size": (2,)})
    text = Fields(text_keys(data, where), f"{where}: text_config")
    eps = text.number("rms_norm_eps", 1e-30, 1.0, 1e-5)
    return Ernie45VlTower(encoder, merge, theta, eps, text_width(data, where, 2560))
