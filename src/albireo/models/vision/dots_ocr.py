"""dots.ocr: patches of any grid, normed as they are embedded and rotated by row and column, gated FFNs, and a merger of
blocks of 2 x 2.

Found by tower.py. Patches are in the order of blocks, so that what becomes one row lies side by side. Source:
rednote-hilab 2025, dots.ocr.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.vision.encoder import IN_ONE, EncoderSettings, layer, linear, mlp, norm
from albireo.models.vision.patches import F32, Grid, grid_of, in_blocks, patch_rows
from albireo.models.vision.positions import places, rotations
from albireo.models.vision.settings import IGNORABLE, MAX_WIDTH, encoder_settings, text_width, vision_fields
from albireo.models.vision.tower_inputs import HoldsNothing, InBlocks, TowerInputs

_TOWER = "vision_tower"
_EMBED, _MERGER = f"{_TOWER}.patch_embed.patchifier", f"{_TOWER}.merger"
_NAMES = IN_ONE._replace(up="mlp.fc3", down="mlp.fc2", gate="mlp.fc1")
_DEFAULTS = {
    "hidden_size": 1536,
    "intermediate_size": 4224,
    "num_hidden_layers": 42,
    "num_attention_heads": 12,
    "patch_size": 14,
    "hidden_act": "silu",
}
#: How some other program runs it, and training.
_OF_OTHERS = keys("attn_implementation init_merger_std gradient_checkpointing")
#: Base of frequencies. Of the merger's norm, which is no RMS norm.
_THETA, _EPS = 10000.0, 1e-6


@dataclass(frozen=True, slots=True)
class DotsOcrTower(InBlocks, HoldsNothing):
    """Implements tower.VisionTower. Fields: merge: patches on a side of what becomes one row. width: of a row.
    is_normed: there is a norm behind the last layer."""

    encoder: EncoderSettings
    merge: int
    width: int
    is_normed: bool

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid, of_axis = grid_of(height, width, c.patch_size), base_frequencies(_THETA, c.head_dim // 2)
        made = patch_rows(tile, c.patch_size), rotations(places(grid), of_axis, of_axis)
        patches, turns = (in_blocks(rows, grid, self.merge) for rows in made)
        return TowerInputs((patches,), grid, turns)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = linear(b, c, b.given(c.patch_width, 0), f"{_EMBED}.proj", c.hidden_size, "patches")
            x = norm(b, c, x, f"{_EMBED}.norm")
        for number in range(c.num_layers):
            x = layer(b, c, x, number, f"{_TOWER}.blocks", _NAMES)
        with b.part("head"):
            if self.is_normed:
                x = norm(b, c, x, f"{_TOWER}.post_trunk_norm")
            x = norm(b, replace(c, is_rms=False), x, f"{_MERGER}.ln_q", _EPS)
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden.reshape(len(hidden) // self.merge**2, -1)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        inner = c.hidden_size * self.merge**2
        return pooled_states(
            b, mlp(b, c, b.given(inner, 0), f"{_MERGER}.mlp", (inner, self.width), "gelu", parts=("0", "2"))
        )


def open_dots_ocr(data: Mapping[str, Any], dtype: str, where: str) -> DotsOcrTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    # hidden_size is that of rows, layers have another one
    fields = vision_fields(data, where, ("dots_vit",), {"hidden_size": "embed_dim"})
    eps = fields.number("rms_norm_eps", 1e-30, 1.0, 1e-5)
    has_bias = fields.flag("use_bias", False)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=eps, is_rms=True, has_bias=has_bias)
    if encoder.head_dim % 4:
        heads = fields.raw("num_attention_heads")
        fields.unsupported("num_attention_heads", heads, f"heads of {encoder.head_dim} are not four equal parts")
    merge, is_normed = fields.integer("spatial_merge_size", 1, 16, 2), fields.flag("post_norm", True)
    of_rows, wanted = Fields(data["vision_config"], fields.where), text_width(data, where)
    if (width := of_rows.integer("hidden_size", 1, MAX_WIDTH, 1536)) != wanted:
        of_rows.fail("hidden_size", width, f"must be the text part's hidden_size={wanted}")
    neutral = {"temporal_patch_size": (1,), "is_causal": (False,)}
    fields.refuse_unread(IGNORABLE | _OF_OTHERS | {"hidden_size"}, neutral)
    return DotsOcrTower(encoder, merge, width, is_normed)
