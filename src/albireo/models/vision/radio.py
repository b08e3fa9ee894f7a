"""Nemotron 3 Nano Omni: C-RADIO of tiles of any grid, blocks of 2 x 2 patches side by side, a norm, and two linears
with relu² between.

Found by tower.py. Learned positions are those of a square as large as a tile's longer side, of which its corner is
taken. Rows of classes and registers come as patches of zeros, of which a linear without a bias makes nothing, and are
among the positions. Sources: Heinrich et al. 2025, RADIOv2.5, arXiv:2412.07679; NVIDIA 2025, Nemotron Nano V2 VL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.text_part import text_keys
from albireo.models.vision.encoder import IN_ONE, EncoderSettings, embedded, layers, mlp, norm
from albireo.models.vision.patches import F32, Grid, grid_of, merged_patches, patch_rows, side_by_side
from albireo.models.vision.positions import center_weights, checked_table, resampled
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_RADIO = "vision_model.radio_model"
_EMBEDDINGS = f"{_RADIO}.model.patch_generator"
_TABLE, _FIRST = f"{_EMBEDDINGS}.pos_embed", f"{_EMBEDDINGS}.cls_token.token"
_BEHIND, _PROJECTOR = "vision_projector.vision_final_layernorm", "mlp1"
_DEFAULTS = {
    "hidden_size": 1280,
    "num_hidden_layers": 32,
    "num_attention_heads": 16,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}
_PROJECTOR_EPS = 1e-5
#: Of videos; of summaries, which no rows are made of; of training; and of whatever made the files.
_OF_OTHERS = keys(
    "video_target_num_patches video_maintain_aspect_ratio video_prompt_version",
    "video_temporal_patch_size video_patch_dim separate_video_embedder summary_idxs patch_dim norm_mean norm_std",
    "image_size drop_path_rate",
    "args version auto_map max_resolution preferred_resolution adaptor_configs adaptor_names",
    "min_num_patches max_num_patches",
)


@dataclass(slots=True)
class RadioTower(GivesRowsOnce):
    """Implements tower.VisionTower. Fields: side: of the table of positions. num_first: rows that are no patches.
    merge: patches on a side of what becomes one row. inner, width: of the projector, and of a row. has_norm: behind all
    layers. table: [side * side, E] positions, first: [num_first, E], once held."""

    encoder: EncoderSettings
    side: int
    num_first: int
    merge: int
    inner: int
    width: int
    has_norm: bool
    table: F32 | None = field(default=None, kw_only=True)
    first: F32 | None = field(default=None, kw_only=True)

    host_tensors = (_TABLE, _FIRST)
    #: Of videos and of summaries; of colours, whose numbers the processor's file has, too; and ones that transformers
    #: saves of layers, which the encoder has not.
    unread_tensors = (
        f"{_EMBEDDINGS}.video_embedder.*",
        f"{_RADIO}.summary_idxs",
        f"{_RADIO}.input_conditioner.*",
        f"{_RADIO}.model.blocks.*.layer_scale?.lambda1",
    )

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width = self.encoder.hidden_size
        flat = {name: tensors[name].reshape(1, -1) for name in self.host_tensors}
        self.table = checked_table(flat, _TABLE, 1, self.side**2 * width).reshape(-1, width)
        self.first = checked_table(flat, _FIRST, 1, self.num_first * width).reshape(-1, width)

    def patches(self, height: int, width: int) -> int:
        return self.num_first + merged_patches(height, width, self.encoder.patch_size, self.merge)

    def rows(self, height: int, width: int) -> int:
        return (self.patches(height, width) - self.num_first) // self.merge**2

    def inputs(self, tile: F32) -> TowerInputs:
        if self.table is None or self.first is None:
            raise InvariantError(f"{_TABLE} is read before it is held")
        self.patches(*tile.shape[:2])
        patches = patch_rows(tile, self.encoder.patch_size)
        grid = grid_of(tile.shape[0], tile.shape[1], self.encoder.patch_size)
        weights = center_weights(max(grid), self.side)
        positions = resampled(self.table, *(weights[:count] for count in grid)).reshape(len(patches), -1)
        none = np.zeros((self.num_first, patches.shape[1]), np.float32)
        return TowerInputs((np.concatenate([none, patches]), np.concatenate([self.first, positions])), grid)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, f"{_EMBEDDINGS}.embedder", False)
        x = layers(b, c, x, f"{_RADIO}.model.blocks", IN_ONE)
        if self.has_norm:
            with b.part("head"):
                x = norm(b, c, x, _BEHIND)
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return side_by_side(hidden[self.num_first :], grid, self.merge)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size * self.merge**2, 0)
        x = norm(b, replace(c, is_rms=True), x, f"{_PROJECTOR}.0", _PROJECTOR_EPS)
        return pooled_states(b, mlp(b, c, x, _PROJECTOR, (self.inner, self.width), "relu2", False, parts=("1", "3")))


def open_nemotron_h_omni(data: Mapping[str, Any], dtype: str, where: str) -> RadioTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = vision_fields(data, where, ("radio",)), Fields(data, where)
    ratio = fields.number("mlp_ratio", 1e-3, 100.0, 4.0)
    hidden = fields.integer("hidden_size", 1, MAX_WIDTH, 1280)
    encoder = encoder_settings(fields, dtype, {**_DEFAULTS, "intermediate_size": int(hidden * ratio)})
    encoder = replace(encoder, has_qkv_bias=fields.flag("qkv_bias", True))
    size = fields.integer("max_img_size", encoder.patch_size, MAX_IMAGE_SIZE, 2048)
    num_first = fields.integer("num_cls_tokens", 1, 1024, 3) + fields.integer("num_registers", 0, 1024, 7)
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, {"use_swiglu_ffn": (False,), "layerscale_value": (1.0, 1)})
    said = whole.integer("vision_hidden_size", 1, MAX_WIDTH, 1280)
    if said != hidden:
        whole.fail("vision_hidden_size", said, f"must be the tower's hidden_size={hidden}")
    share = whole.number("downsample_ratio", 1 / 16, 1.0, 0.5)
    if not (1 / share).is_integer():
        whole.unsupported("downsample_ratio", share, "supported: 1 divided by a whole number")
    for key, only in (("ps_version", "v2"), ("use_pixel_shuffle", True)):
        whole.only(key, only)
    inner = whole.integer("projector_hidden_size", 1, 16 * MAX_WIDTH, 4096)
    of_text = Fields(text_keys(data, where), f"{where}: text_config")
    guesses = of_text.integer("num_nextn_predict_layers", 0, 1024, 0)
    side = size // encoder.patch_size
    return RadioTower(encoder, side, num_first, int(1 / share), inner, text_width(data, where), guesses > 0)
