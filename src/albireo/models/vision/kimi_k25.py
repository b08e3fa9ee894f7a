"""Kimi K2.5, K2.6 and Kimi-VL: MoonViT, whose patches of any grid have learned positions, resampled, and are rotated
by column and row, too; a norm of each patch, blocks of 2 x 2 side by side, and an MLP.

Of a video a tile is up to four frames, all of whose patches see each other: they have added where their frame is, a
row of sines and cosines, and become the mean of all frames. Its frames lie one above another, and it is as many pixels
wider than these as there are further ones.

Found by tower.py. Tensors have the names they were published by, as transformers saves them, too. Pairs that turn are
neighbours, and take turns between column and row. Kimi-VL's reads no videos, and its projector has other names.
Sources: Kimi Team 2026, Kimi K2.5; Kimi Team 2025, Kimi-VL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.vision.encoder import EncoderSettings, Names, embedded, layer, linear, norm
from albireo.models.vision.made_tensors import Made
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
    "pos_emb_time": "init_pos_emb_time",
}
#: Of their files: what is computed anyway.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "pos_emb_type": ("divided_fixed",),
    "merge_type": ("sd2_tpool",),
    "mm_projector_type": ("patchmerger",),
    "projector_hidden_act": ("gelu",),
    "video_attn_type": ("spatial_temporal",),
}
#: Of all norms but the projector's.
_EPS = 1e-5
_VISION = "vision_tower"
_TABLE = f"{_VISION}.patch_embed.pos_emb.weight"


class _Projector(NamedTuple):
    """What a checkpoint calls the projector and its linears."""

    module: str = "mm_projector"
    first: str = "proj.0"
    second: str = "proj.2"

    @property
    def up(self) -> str:
        return f"{self.module}.{self.first}"

    @property
    def norm_bias(self) -> str:
        return f"{self.module}.pre_norm.bias"


_OF_KIMI_K25, _OF_KIMI_VL = _Projector(), _Projector("multi_modal_projector", "linear_1", "linear_2")


@dataclass(slots=True)
class KimiK25Tower(GivesRowsOnce):
    """Implements tower.VisionTower. Fields: side: of the table of positions. merge: patches on a side of what becomes
    one row. theta: base of frequencies. projector_eps: of its norm. width: of a row. most: frames of a tile. names: of
    the projector. table: [side * side, E] positions, once held."""

    encoder: EncoderSettings
    side: int
    merge: int
    theta: float
    projector_eps: float
    width: int
    most: int
    names: _Projector = _OF_KIMI_K25
    table: F32 | None = field(default=None, kw_only=True)

    host_tensors = (_TABLE,)

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        return self.names.norm_bias, f"{self.names.up}.bias"

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        inner, up = self.encoder.hidden_size * self.merge**2, self.names.up
        sources = self.names.norm_bias, f"{up}.weight", f"{up}.bias"
        return {f"{up}.made_bias": Made((inner,), sources, self._bias)}

    def _bias(self, of_norm: F32, weight: F32, bias: F32) -> F32:
        """Of the linear behind the norm, where that has none: what it makes of the norm's is in it."""
        each = weight.reshape(len(weight), -1, len(of_norm)) * of_norm
        return np.asarray(bias + each.sum(axis=(1, 2), dtype=np.float64), np.float32)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.table = checked_table(tensors, _TABLE, self.side, self.side * self.encoder.hidden_size)

    def _frames(self, height: int, width: int) -> tuple[int, int, int]:
        """How many a tile of so many pixels has, and height and width of one. Raises: InvariantError where these are
        none."""
        count = width % (self.encoder.patch_size * self.merge) + 1
        if count > self.most or height % count:
            return 1, height, width
        return count, height // count, width - count + 1

    def patches(self, height: int, width: int) -> int:
        count, *size = self._frames(height, width)
        return count * merged_patches(size[0], size[1], self.encoder.patch_size, self.merge)

    def rows(self, height: int, width: int) -> int:
        _, *size = self._frames(height, width)
        return merged_patches(size[0], size[1], self.encoder.patch_size, self.merge) // self.merge**2

    def inputs(self, tile: F32) -> TowerInputs:
        if self.table is None:
            raise InvariantError(f"{_TABLE} is read before it is held")
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        count, height, width = self._frames(height, width)
        grid, of_axis = grid_of(height, width, c.patch_size), base_frequencies(self.theta, c.head_dim // 2)
        frames = tile[:, :width].reshape(count, height, width, 3)
        patches = np.concatenate([patch_rows(frame, c.patch_size) for frame in frames])
        positions = resampled(self.table, *(cubic_weights(sides, self.side) for sides in grid)).reshape(
            grid[0] * grid[1], -1
        )
        # of one frame nobody asks when it is
        times = _times(count, c.hidden_size) if count > 1 else np.zeros((1, 1), np.float32)
        turns = np.tile(taking_turns(places(grid)[..., ::-1], of_axis), (count, 1))
        return TowerInputs((patches, (positions + times[:, None]).reshape(len(patches), -1)), grid, turns)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, f"{_VISION}.patch_embed.proj")
        for number in range(c.num_layers):
            x = layer(b, c, x, number, f"{_VISION}.encoder.blocks", _NAMES)
        with b.part("head"):
            x = norm(b, c, x, f"{_VISION}.encoder.final_layernorm")
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """Means of frames, those of a block side by side."""
        frames = hidden.reshape(-1, grid[0] * grid[1], hidden.shape[1])
        return side_by_side(frames[0] if len(frames) == 1 else frames.mean(axis=0, dtype=np.float32), grid, self.merge)

    def projector(self) -> Graph:
        b, c, inner = GraphBuilder(), self.encoder, self.encoder.hidden_size * self.merge**2
        module, first, second = self.names
        with b.part("norm"):
            # of each patch; its bias goes through what follows
            weight = b.weight(f"{module}.pre_norm.weight", (c.hidden_size,), "float32")
            x = b.layer_norm(b.given(inner, 0), weight, None, self.projector_eps, num_heads=self.merge**2)
        with b.part("up"):
            weight = b.weight(f"{module}.{first}.weight", (inner, inner), c.dtype)
            bias = b.weight(f"{module}.{first}.made_bias", (inner,), "float32")
            x = b.linear(b.cast(x, c.dtype), weight, bias)
        with b.part("act"):
            x = b.unary(x, "gelu")
        return pooled_states(b, linear(b, c, x, f"{module}.{second}", self.width, "down"))


def open_kimi_k25(data: Mapping[str, Any], dtype: str, where: str) -> KimiK25Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    return _opened(data, dtype, where, ("kimi_k25_vision", "kimi_k25"))


def open_kimi_vl(data: Mapping[str, Any], dtype: str, where: str) -> KimiK25Tower:
    """One frame a tile. Raises: as open_kimi_k25()."""
    return replace(_opened(data, dtype, where, ("moonvit",)), most=1, names=_OF_KIMI_VL)


def _opened(data: Mapping[str, Any], dtype: str, where: str, model_types: tuple[str, ...]) -> KimiK25Tower:
    table, whole = Fields(data, where).table("vision_config") or {}, Fields(data, where)
    names = {key: first for key, first in _FIRST_NAMES.items() if first in table}
    fields = vision_fields(data, where, model_types, names)
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
    most = min(fields.integer("pos_emb_time", 1, MAX_IMAGE_SIZE, 4), encoder.patch_size * merge)
    fields.refuse_unread(IGNORABLE, _NEUTRAL)
    return KimiK25Tower(encoder, side, merge, theta, eps, width, most)


def _times(count: int, width: int) -> F32:
    """[count, width] of frames: sines, then cosines."""
    angles = np.outer(np.arange(count, dtype=np.float32), base_frequencies(10000.0, width))
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def _merge(fields: Fields) -> int:
    """Patches on a side of a row. Raises: UnsupportedModel where they are no square."""
    given = fields.raw("merge_kernel_size")
    given = [2, 2] if given is None else given
    first = given[0] if isinstance(given, list) and len(given) == 2 else None
    if type(first) is not int or not 1 <= first <= 16 or given != [first, first]:
        fields.unsupported("merge_kernel_size", given, "supported: two equal numbers from 1 to 16")
    return first
