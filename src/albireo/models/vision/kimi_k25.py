"""Kimi K2.5 and K2.6: MoonViT, whose patches of any grid have learned positions, resampled, and are rotated by column
and row, too; a norm of each patch, blocks of 2 x 2 side by side, and an MLP.

Found by tower.py. Tensors have the names they were published by, as transformers saves them, too. Pairs that turn are
neighbours, and take turns between column and row. Source: Kimi Team 2026, Kimi K2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.vision.encoder import EncoderSettings, Names, layer, linear, norm
from albireo.models.vision.patches import F32, Grid, grid_of, merged_patches, patch_rows, side_by_side
from albireo.models.vision.positions import axial_theta, checked_table, cubic_weights, places, resampled, taking_turns
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_NAMES = Names("norm0", "q", "k", "v", "wo", "norm1", "mlp.fc0", "mlp.fc1", joined="wqkv")
_DEFAULTS = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
}
#: What its authors call keys.
_FIRST_NAMES = {
    "hidden_size": "vt_hidden_size",
    "intermediate_size": "vt_intermediate_size",
    "num_hidden_layers": "vt_num_hidden_layers",
    "num_attention_heads": "vt_num_attention_heads",
    "pos_emb_height": "init_pos_emb_height",
    "pos_emb_width": "init_pos_emb_width",
}
#: Of their files: what is computed anyway.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "pos_emb_type": ("divided_fixed",),
    "merge_type": ("sd2_tpool",),
    "mm_projector_type": ("patchmerger",),
    "projector_hidden_act": ("gelu",),
    "video_attn_type": ("spatial_temporal",),
}
#: Of videos, of which a picture is one frame.
_OF_VIDEOS = keys("pos_emb_time init_pos_emb_time")
#: Of all norms but the projector's.
_EPS = 1e-5
_VISION, _PROJECTOR = "vision_tower", "mm_projector"
_TABLE = f"{_VISION}.patch_embed.pos_emb.weight"


@dataclass(slots=True)
class KimiK25Tower(GivesRowsOnce):
    """Implements tower.VisionTower. Fields: side: of the table of positions. merge: patches on a side of what becomes
    one row. theta: base of frequencies. projector_eps: of its norm. width: of a row. table: [side * side, E] positions,
    once held."""

    encoder: EncoderSettings
    side: int
    merge: int
    theta: float
    projector_eps: float
    width: int
    table: F32 | None = field(default=None, kw_only=True)

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return (_TABLE,)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.table = checked_table(tensors, _TABLE, self.side, self.side * self.encoder.hidden_size)

    def patches(self, height: int, width: int) -> int:
        return merged_patches(height, width, self.encoder.patch_size, self.merge)

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) // self.merge**2

    def inputs(self, tile: F32) -> TowerInputs:
        if self.table is None:
            raise InvariantError(f"{_TABLE} is read before it is held")
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid, of_axis = grid_of(height, width, c.patch_size), base_frequencies(self.theta, c.head_dim // 2)
        patches = patch_rows(tile, c.patch_size)
        positions = resampled(self.table, *(cubic_weights(count, self.side) for count in grid))
        turns = taking_turns(places(grid)[..., ::-1], of_axis)
        return TowerInputs((patches, positions.reshape(len(patches), -1)), grid, turns)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            name = f"{_VISION}.patch_embed.proj"
            x = linear(b, c, b.given(c.patch_width, 0), name, c.hidden_size, "patches")
            with b.part("positions"):
                x = b.add(x, b.given(c.hidden_size, 1))
        for number in range(c.num_layers):
            x = layer(b, c, x, number, f"{_VISION}.encoder.blocks", _NAMES)
        with b.part("head"):
            x = norm(b, c, x, f"{_VISION}.encoder.final_layernorm")
            with b.part("further"):
                x = norm(b, c, x, f"{_PROJECTOR}.pre_norm", self.projector_eps)
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return side_by_side(hidden, grid, self.merge)

    def projector(self) -> Graph:
        b, c, inner = GraphBuilder(), self.encoder, self.encoder.hidden_size * self.merge**2
        x = linear(b, c, b.given(inner, 0), f"{_PROJECTOR}.proj.0", inner, "up")
        with b.part("act"):
            x = b.unary(x, "gelu")
        return pooled_states(b, linear(b, c, x, f"{_PROJECTOR}.proj.2", self.width, "down"))


def open_kimi_k25(data: Mapping[str, Any], dtype: str, where: str) -> KimiK25Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    table, whole = Fields(data, where).table("vision_config") or {}, Fields(data, where)
    names = {key: first for key, first in _FIRST_NAMES.items() if first in table}
    fields = vision_fields(data, where, ("kimi_k25_vision", "kimi_k25"), names)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=_EPS, turned_share=1.0, turns_neighbours=True)
    if encoder.head_dim % 4:
        heads = fields.raw("num_attention_heads")
        fields.unsupported("num_attention_heads", heads, f"heads of {encoder.head_dim} are not four equal parts")
    side, wide = (fields.integer(f"pos_emb_{axis}", 1, MAX_IMAGE_SIZE, 64) for axis in ("height", "width"))
    if side != wide:
        fields.unsupported("pos_emb_width", wide, f"the table of positions is a square, of pos_emb_height={side}")
    theta, width = axial_theta(fields), text_width(data, where, 7168)
    # of the projector, said beside the tower's or among its keys
    said = (
        (whole, "projection_hidden_size", encoder.hidden_size),
        (fields, "mm_hidden_size", encoder.hidden_size),
        (fields, "text_hidden_size", width),
    )
    for at, key, wanted in said:
        if at.optional_integer(key, 1, MAX_WIDTH) not in (None, wanted):
            at.fail(key, at.raw(key), f"must be {wanted}, as config.json says elsewhere")
    eps = fields.number("projector_ln_eps", 1e-30, 1.0, whole.number("projection_layer_norm_eps", 1e-30, 1.0, 1e-5))
    merge = _merge(fields)
    fields.refuse_unread(IGNORABLE | _OF_VIDEOS, _NEUTRAL)
    return KimiK25Tower(encoder, side, merge, theta, eps, width)


def _merge(fields: Fields) -> int:
    """Patches on a side of a row. Raises: UnsupportedModel where they are no square."""
    given = fields.raw("merge_kernel_size")
    given = [2, 2] if given is None else given
    first = given[0] if isinstance(given, list) and len(given) == 2 else None
    if type(first) is not int or not 1 <= first <= 16 or given != [first, first]:
        fields.unsupported("merge_kernel_size", given, "supported: two equal numbers from 1 to 16")
    return first
