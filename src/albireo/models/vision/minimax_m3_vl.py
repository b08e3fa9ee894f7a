"""MiniMax M3: patches of any grid rotated by time, row and column, an MLP of each, and another of blocks of 2 x 2.

Found by tower.py. Patches are in the order of blocks, so that what becomes one row lies side by side. A tile is two
frames, of a picture two that are alike, so that no patch turns by time; of a video up to four such moments, one above
another, all of whose patches see each other: it is as many pixels wider than these as there are further ones. Tensors
have the names they were published by. Source: MiniMax 2026, MiniMax M3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, layers, linear, mlp, norm
from albireo.models.vision.patches import F32, Grid, grid_of, in_blocks, merged_patches, patches_in_time
from albireo.models.vision.positions import axial_theta, places, rotations
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_WIDTH,
    activation,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import NAMES
from albireo.models.vision.tower_inputs import HoldsNothing, TowerInputs

_DEFAULTS = sizes(1280, 5120, 32, 16, patch_size=14, hidden_act="gelu", layer_norm_eps=1e-5)
_VISION, _PROJECTOR, _MERGER = "vision_tower", "multi_modal_projector", "patch_merge_mlp"
#: Where its authors say how patches become rows, and what else they say of that.
_PART = "img_token_compression_config"
_OF_PART = keys("image_token_compression_threshold max_image_resolution")
#: What is computed anyway; of videos; the largest picture, which whoever makes tiles asks for; and of CLIP.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {"position_embedding_type": ("rope",), "rope_mode": ("3d",)}
_OF_OTHERS = keys("image_size projection_dim")


@dataclass(frozen=True, slots=True)
class MiniMaxM3Tower(HoldsNothing):
    """Implements tower.VisionTower. Fields: frames: that a patch has. merge: patches on a side of what becomes one row.
    theta: base of frequencies. inner, act: of either MLP. width: of a row. most: pairs of frames that see
    each other."""

    encoder: EncoderSettings
    frames: int
    merge: int
    theta: float
    inner: int
    act: str
    width: int
    most: int

    def _moments(self, height: int, width: int) -> tuple[int, int, int]:
        """How many a tile of so many pixels has, one above another, and height and width of one."""
        count = width % (self.encoder.patch_size * self.merge) + 1
        if count > self.most or height % count:
            return 1, height, width
        return count, height // count, width - count + 1

    def patches(self, height: int, width: int) -> int:
        count, high, wide = self._moments(height, width)
        return count * merged_patches(high, wide, self.encoder.patch_size, self.merge)

    def inputs(self, tile: F32) -> TowerInputs:
        c = self.encoder
        self.patches(*tile.shape[:2])
        count, height, width = self._moments(*tile.shape[:2])
        grid = grid_of(height, width, c.patch_size)
        moments = tile[:, :width].reshape(count, height, width, -1)
        given = (patches_in_time(moment, c.patch_size, self.frames) for moment in moments)
        turns = (in_blocks(self._turns(grid, time), grid, self.merge) for time in range(count))
        patches = np.concatenate([in_blocks(each, grid, self.merge) for each in given])
        return TowerInputs((patches,), grid, np.concatenate(list(turns)))

    def _turns(self, grid: Grid, time: int) -> F32:
        """[T, head_dim] cosines, then sines, of a moment: a third of what turns does by time, the others by line and by
        column; the last channels, if any, do not."""
        of_axis = base_frequencies(self.theta, self.encoder.turned // 3)
        turned, each = rotations(places(grid), of_axis, of_axis), len(of_axis)
        angles = np.broadcast_to((np.float32(time) * of_axis).astype(np.float32), (len(turned), each))
        rest = self.encoder.head_dim // 2 - 3 * each
        cosines, sines = np.split(turned, 2, axis=1)
        ends = np.ones((len(turned), rest), np.float32)
        return np.concatenate([np.cos(angles), cosines, ends, np.sin(angles), sines, 0 * ends], axis=1)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            patches, name = b.given(c.patch_width * self.frames, 0), f"{_VISION}.embeddings.patch_embedding"
            x = linear(b, c, patches, name, c.hidden_size, "patches", False)
            x = norm(b, c, x, f"{_VISION}.pre_layrnorm")
        x = layers(b, c, x, f"{_VISION}.encoder.layers", NAMES)
        with b.part("head"):
            return pooled_states(b, mlp(b, c, x, _PROJECTOR, (self.inner, self.width), self.act))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden.reshape(len(hidden) // self.merge**2, -1)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(self.width * self.merge**2, 0)
        return pooled_states(b, mlp(b, c, x, _MERGER, (self.inner, self.width), self.act))


def open_minimax_m3_vl(data: Mapping[str, Any], dtype: str, where: str) -> MiniMaxM3Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    # as transformers has it, and as it was published
    fields, whole = vision_fields(data, where, ("minimax_m3_vl_vision", "clip_vision_model")), Fields(data, where)
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    turned = 6 * (encoder.head_dim // 6)
    if not turned:
        heads = fields.raw("num_attention_heads")
        fields.unsupported("num_attention_heads", heads, f"heads of {encoder.head_dim} have no three axes")
    encoder = replace(encoder, turned=turned)
    part = fields.table(_PART) or whole.table(_PART)
    said = fields if part is None else Fields(part, f"{fields.where}: {_PART}")
    frames, merge = said.integer("temporal_patch_size", 1, 16, 2), said.integer("spatial_merge_size", 1, 16, 2)
    if part is not None:
        said.refuse_unread(_OF_PART, {"image_token_compression_method": ("patch_merge",)})
    width, inner = text_width(data, where), whole.integer("projector_hidden_size", 1, MAX_WIDTH, 6144)
    if whole.integer("merged_hidden_size", 1, 2**24, width * merge**2) != width * merge**2:
        what = f"must be {width * merge**2}: hidden_size of the text part, spatial_merge_size² times"
        whole.fail("merged_hidden_size", whole.raw("merged_hidden_size"), what)
    if not whole.flag("multimodal_projector_bias", True):
        whole.unsupported("multimodal_projector_bias", False, "supported: true")
    act = activation(whole, "projector_hidden_act", "gelu")
    if act != "gelu":
        whole.unsupported("projector_hidden_act", whole.raw("projector_hidden_act"), "supported: gelu")
    theta = axial_theta(fields)
    # as many as there can be, which the width of a tile tells
    most = min(fields.integer("vision_segment_max_frames", 1, 2**16, 4), encoder.patch_size * merge)
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, _NEUTRAL)
    return MiniMaxM3Tower(encoder, frames, merge, theta, inner, act, width, most)
