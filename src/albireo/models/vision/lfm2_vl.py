"""LFM2-VL: SigLIP 2 of tiles of any grid, whose positions are resampled, a pixel unshuffle, and a projector.

Found by tower.py. Source: Tschannen et al. 2025, SigLIP 2 (NaFlex).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import EncoderSettings, mlp, norm
from albireo.models.vision.patches import F32, grid_of, patch_rows
from albireo.models.vision.positions import checked_table, held, resampled, smooth_weights
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_WIDTH,
    activation,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, siglip
from albireo.models.vision.tower_inputs import GivesRowsOnce, InBlocks, TowerInputs

_PROJECTOR = "multi_modal_projector"
_TABLE = "vision_tower.embeddings.position_embedding.weight"


@dataclass(slots=True)
class Lfm2VLTower(InBlocks, GivesRowsOnce):
    """Implements tower.VisionTower. Fields: side: of the table of positions. merge: patches on a side of what becomes
    one row. inner: width of the projector, whose activation is act. table: [side * side, E] positions, once held."""

    encoder: EncoderSettings
    side: int
    merge: int
    inner: int
    width: int
    act: str
    has_bias: bool
    has_norm: bool
    table: F32 | None = None

    host_tensors = (_TABLE,)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.table = checked_table(tensors, _TABLE, self.side**2, self.encoder.hidden_size)

    def inputs(self, tile: F32) -> TowerInputs:
        height, width, _ = tile.shape
        self.patches(height, width)
        grid = grid_of(height, width, self.encoder.patch_size)
        positions = resampled(held(self.table, _TABLE), *(smooth_weights(count, self.side) for count in grid))
        patches = patch_rows(tile, self.encoder.patch_size, is_channel_last=True)
        return TowerInputs((patches, positions.reshape(len(patches), -1)), grid)

    def graph(self) -> Graph:
        return siglip(self.encoder, "vision_tower", None)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size * self.merge**2, 0)
        if self.has_norm:
            x = norm(b, c, x, f"{_PROJECTOR}.layer_norm", 1e-5)
        return pooled_states(b, mlp(b, c, x, _PROJECTOR, (self.inner, self.width), self.act, self.has_bias))


def open_lfm2_vl(data: Mapping[str, Any], dtype: str, where: str) -> Lfm2VLTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = vision_fields(data, where, ("siglip2_vision_model",)), Fields(data, where)
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    table = fields.integer("num_patches", 1, MAX_WIDTH, 256)
    # a head would pool patches, and is not asked for rows
    fields.refuse_unread(IGNORABLE | keys("vision_use_head"), {})
    side, last = int(table**0.5), whole.raw("vision_feature_layer")
    if side * side != table:
        fields.fail("num_patches", table, "must be a square")
    if last not in (None, -1) or isinstance(last, bool):
        whole.unsupported("vision_feature_layer", last, "supported: -1, the last")
    return Lfm2VLTower(
        encoder,
        side,
        whole.integer("downsample_factor", 1, 16, 2),
        whole.integer("projector_hidden_size", 1, 16 * MAX_WIDTH, 2560),
        text_width(data, where, 2560),
        activation(whole, "projector_hidden_act", "gelu"),
        whole.flag("projector_bias", True),
        whole.flag("projector_use_layernorm", True),
    )
