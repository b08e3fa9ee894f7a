"""HunyuanOCR: a vision transformer of tiles of any grid with learned positions, and blocks of 2 x 2 patches made one by
two convolutions, a linear and a norm.

Found by tower.py. Behind each line of rows stands one that is made of a vector of the checkpoint, before and behind all
of them one more each. Source: Tencent Hunyuan 2025, HunyuanOCR, arXiv:2511.19575.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, Names, embedded, layers, linear, norm
from albireo.models.vision.patches import F32, Grid, blocks, grid_of, patch_rows
from albireo.models.vision.positions import center_weights, checked_table, held, resampled
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import GivesRowsOnce, InBlocks, TowerInputs

_NAMES = Names(up="mlp.dense_h_to_4h", down="mlp.dense_4h_to_h")
_KEYS = {"layer_norm_eps": "rms_norm_eps"}
_DEFAULTS = sizes(1152, 4304, 27, 16, patch_size=16, hidden_act="gelu", layer_norm_eps=1e-5)
_EMBEDDINGS, _MERGER = "vit.embeddings", "vit.perceive"
_TABLE = f"{_EMBEDDINGS}.position_embedding.weight"
_LINE, _BEGIN, _END = (f"{_MERGER}.image_{part}" for part in ("newline", "begin", "end"))
_LAST, _BIAS, _NORM = f"{_MERGER}.mlp.weight", f"{_MERGER}.mlp.bias", f"{_MERGER}.after_rms.weight"
#: How large pictures may be, which whoever prepares them asks of another file; and training.
_OF_OTHERS = keys("img_max_token_num min_image_size max_vit_seq_len resize_resolution out_hidden_size")


@dataclass(slots=True)
class HunyuanVlTower(InBlocks, GivesRowsOnce):
    """Implements tower.VisionTower. Fields: side: of the table of positions. merge: patches on a side of what becomes
    one row. width: of a row. table: [side * side, E] positions, once held; marks: rows that stand behind a line, before
    all and behind all, [3, width], too."""

    encoder: EncoderSettings
    side: int
    merge: int
    width: int
    table: F32 | None = field(default=None, kw_only=True)
    marks: F32 | None = field(default=None, kw_only=True)

    host_tensors = (_TABLE, _LINE, _BEGIN, _END, _LAST, _BIAS, _NORM)
    #: What would stand between pictures, and does not.
    unread_tensors = (f"{_MERGER}.image_sep",)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        wide = 4 * self.encoder.hidden_size
        # the first is of a class, which there is none of
        self.table = checked_table(tensors, _TABLE, 1 + self.side**2, self.encoder.hidden_size)[1:]
        flat = {name: tensors[name].reshape(1, -1) for name in (_LINE, _BEGIN, _END, _BIAS, _NORM)}
        line = checked_table(flat, _LINE, 1, wide)
        begin, end, bias, gain = (checked_table(flat, name, 1, self.width) for name in (_BEGIN, _END, _BIAS, _NORM))
        # not by BLAS, whose sums depend on how many threads it has
        behind = (checked_table(tensors, _LAST, self.width, wide) * line).sum(axis=1, dtype=np.float64) + bias
        rows = np.concatenate([behind, begin, end])
        roots = np.sqrt(np.square(rows).mean(axis=1, keepdims=True) + self.encoder.eps)
        self.marks = (rows / roots * gain).astype(np.float32)

    def rows(self, height: int, width: int) -> int:
        step = self.encoder.patch_size * self.merge
        return self.patches(height, width) // self.merge**2 + height // step + 2

    def projected(self, height: int, width: int) -> int:
        return self.patches(height, width) // self.merge**2

    def inputs(self, tile: F32) -> TowerInputs:
        height, width, _ = tile.shape
        self.patches(height, width)
        grid, patches = grid_of(height, width, self.encoder.patch_size), patch_rows(tile, self.encoder.patch_size)
        positions = resampled(held(self.table, _TABLE), *(center_weights(count, self.side) for count in grid))
        return TowerInputs((patches, positions.reshape(len(patches), -1)), grid)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, f"{_EMBEDDINGS}.patch_embedding")
        x = layers(b, c, x, "vit.layers", _NAMES)
        with b.part("head"):
            x = norm(b, replace(c, is_rms=True), x, f"{_MERGER}.before_rms")
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """Of each block, number by number what its patches have of it, as the convolution's weight is flattened."""
        cut = blocks(hidden, grid, self.merge)
        return np.ascontiguousarray(cut.transpose(0, 1, 4, 2, 3).reshape(cut.shape[0] * cut.shape[1], -1))

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size * self.merge**2, 0)
        x = linear(b, c, x, f"{_MERGER}.proj.0", 2 * c.hidden_size, "up")
        with b.part("act"):
            x = activated(b, x, c.act)
        x = linear(b, c, x, f"{_MERGER}.proj.2", 4 * c.hidden_size, "out")
        x = linear(b, c, x, f"{_MERGER}.mlp", self.width, "down")
        return pooled_states(b, norm(b, replace(c, is_rms=True), x, f"{_MERGER}.after_rms"))

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        behind, begin, end = held(self.marks, _LINE)[:, None]
        lines = rows.reshape(grid[0] // self.merge, grid[1] // self.merge, self.width)
        with_ends = np.concatenate([lines, np.broadcast_to(behind, (len(lines), 1, self.width))], axis=1)
        return np.concatenate([begin, with_ends.reshape(-1, self.width), end])


def open_hunyuan_vl(data: Mapping[str, Any], dtype: str, where: str) -> HunyuanVlTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("hunyuan_vl_vision", "hunyuan_vl"), _KEYS)
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    size, merge = (
        fields.integer("max_image_size", encoder.patch_size, MAX_IMAGE_SIZE, 2048),
        fields.integer("spatial_merge_size", 1, 16, 2),
    )
    width = text_width(data, where)
    # out_hidden_size says another where files leave it to transformers
    said = fields.optional_integer("text_hidden_size", 1, MAX_WIDTH)
    if said not in (None, width):
        fields.fail("text_hidden_size", said, f"must be the text part's hidden_size={width}")
    neutral = {
        "num_key_value_heads": (encoder.num_heads,),
        "temporal_patch_size": (1,),
        "interpolate_mode": ("bilinear",),
        "add_patchemb_bias": (True,),
        "cat_extra_token": (1, True),
        "anyres_pooling_size": (2,),
    }
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, neutral)
    return HunyuanVlTower(encoder, size // encoder.patch_size, merge, width)
