"""MiniCPM-V 4.6 and MiniCPM-OCR: SigLIP of tiles of any grid, among whose layers blocks of 2 x 2 patches become one,
and a projector that makes one of as many again.

Found by tower.py. What is before the merger is the tower's stem, as there are four times as many rows: patches stand in
the order of blocks, all see each other, and last each block itself alone. Where files say 4x, as those of MiniCPM-OCR
do, there is no such merger, and four times as many rows. Positions are entries of a table, those nearest. Source:
OpenBMB 2026, MiniCPM-V 4.6, as transformers computes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.stem import GivesRowsAlone, Stem
from albireo.models.vision.encoder import EncoderSettings, attended, layer, layers, linear, mlp, norm, rounded_norm
from albireo.models.vision.patches import (
    F32,
    Grid,
    Sequences,
    grid_of,
    in_blocks,
    merged_patches,
    patch_rows,
)
from albireo.models.vision.positions import checked_table, held
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, NAMES, siglip
from albireo.models.vision.tower_inputs import GivesRowsOnce, InBlocks, TowerInputs

_TOWER, _MERGER = "vision_tower", "merger.mlp.0"
_WITHIN = f"{_TOWER}.vit_merger"
_TABLE = f"{_TOWER}.embeddings.position_embedding.weight"
#: Patches on a side of what becomes one, among the layers and again behind them.
_MERGE = 2
#: Of the projector's norm.
_EPS = 1e-6


@dataclass(slots=True)
class _Before(GivesRowsAlone):
    """Implements stem.Stem: layers before the merger, and its attention. Fields: num_layers: that there are of them.
    side: of the table of positions [side * side, E]."""

    encoder: EncoderSettings
    num_layers: int
    side: int
    table: F32 | None = field(default=None, kw_only=True)
    grid: Grid = field(default=(0, 0), kw_only=True)

    def graphs(self) -> tuple[Graph, ...]:
        b, c = GraphBuilder(), self.encoder
        name = f"{_TOWER}.embeddings.patch_embedding"
        with b.part("embed"):
            patches = pooled_states(b, linear(b, c, b.given(c.patch_width, 0), name, c.hidden_size, "patches"))
        b = GraphBuilder()
        x = b.given(c.hidden_size, 0)
        x = layers(b, c, x, f"{_TOWER}.encoder.layers", NAMES, self.num_layers)
        with b.part("within"):
            h = rounded_norm(b, c, x, f"{_WITHIN}.layer_norm1")
            o = linear(b, c, attended(b, c, h, _WITHIN, NAMES, 1), f"{_WITHIN}.{NAMES.out}", c.hidden_size, "o")
            x = b.add(x, o)
        return patches, pooled_states(b, x)

    def sequences(self, number: int, rows: int) -> Sequences:
        """Of what is before the merger: all, and each block."""
        return ((rows,), (_MERGE**2,) * (rows // _MERGE**2)) if number else ()

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return (patches * _MERGE**2,) * 2

    def pieces(self, tile: F32) -> Iterator[F32]:
        grid = grid_of(tile.shape[0], tile.shape[1], self.encoder.patch_size)
        self.grid = grid
        yield in_blocks(patch_rows(tile, self.encoder.patch_size), grid, _MERGE)

    def behind(self, number: int, hidden: F32) -> F32:
        """With positions; then the patches of each block side by side."""
        if number:
            return hidden.reshape(len(hidden) // _MERGE**2, -1)
        # integers, as rows of numbers, in the order of blocks
        order = in_blocks(_nearest(self.grid, self.side), self.grid, _MERGE).astype(np.int64).ravel()
        added: F32 = hidden + held(self.table, _TABLE)[order]
        return added


def _nearest(grid: Grid, side: int) -> F32:
    """[T, 1] numbers of entries of the table that patches of a grid have, in reading order."""
    rows, columns = (np.arange(count) * side // count for count in grid)
    return (rows[:, None] * side + columns).reshape(-1, 1).astype(np.float32)


@dataclass(slots=True)
class MiniCpmV46Tower(GivesRowsOnce):
    """Implements tower.VisionTower; its patches are blocks that the stem gives. Fields: before: the stem. width: of a
    row."""

    encoder: EncoderSettings
    before: _Before
    width: int
    merge: int = field(default=_MERGE, init=False)

    host_tensors = (_TABLE,)

    @property
    def stem(self) -> Stem:
        return self.before

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.before.table = checked_table(tensors, _TABLE, self.before.side**2, self.encoder.hidden_size)

    def patches(self, height: int, width: int) -> int:
        return merged_patches(height, width, self.encoder.patch_size * _MERGE, _MERGE)

    def inputs(self, tile: F32) -> TowerInputs:
        """Of blocks of patches, side by side; and what they are in the mean."""
        means: F32 = tile.reshape(len(tile), _MERGE**2, -1).mean(axis=1, dtype=np.float32)
        rows, columns = self.before.grid
        return TowerInputs((tile, means), (rows // _MERGE, columns // _MERGE))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("merger"):
            x = norm(b, c, b.given(c.hidden_size * _MERGE**2, 0), f"{_WITHIN}.pre_norm")
            x = mlp(b, c, x, _WITHIN, (c.intermediate_size * _MERGE**2, c.hidden_size), "gelu_tanh")
            x = b.add(x, b.given(c.hidden_size, 1))
        for number in range(self.before.num_layers, c.num_layers):
            x = layer(b, c, x, number, f"{_TOWER}.encoder.layers", NAMES)
        with b.part("head"):
            x = norm(b, c, x, f"{_TOWER}.post_layernorm")
        return pooled_states(b, x)

    def projector(self) -> Graph:
        return _projector(self.encoder, self.width)


@dataclass(slots=True)
class FineTower(InBlocks, GivesRowsOnce):
    """Implements tower.VisionTower, of files that say 4x. Fields: side: of the table of positions. width: of a row.
    table: [side * side, E] positions, once held."""

    encoder: EncoderSettings
    side: int
    width: int
    table: F32 | None = field(default=None, kw_only=True)
    merge: int = field(default=_MERGE, init=False)

    host_tensors = (_TABLE,)
    unread_tensors = (f"{_WITHIN}.*",)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.table = checked_table(tensors, _TABLE, self.side**2, self.encoder.hidden_size)

    def inputs(self, tile: F32) -> TowerInputs:
        self.patches(*tile.shape[:2])
        grid = grid_of(tile.shape[0], tile.shape[1], self.encoder.patch_size)
        order = _nearest(grid, self.side).astype(np.int64).ravel()
        return TowerInputs((patch_rows(tile, self.encoder.patch_size), held(self.table, _TABLE)[order]), grid)

    def graph(self) -> Graph:
        return siglip(self.encoder, _TOWER, None)

    def projector(self) -> Graph:
        return _projector(self.encoder, self.width)


def _projector(c: EncoderSettings, width: int) -> Graph:
    b, inner = GraphBuilder(), c.hidden_size * _MERGE**2
    x = norm(b, c, b.given(inner, 0), f"{_MERGER}.pre_norm", _EPS)
    return pooled_states(b, mlp(b, c, x, _MERGER, (inner, width), "gelu"))


def open_minicpmv4_6(data: Mapping[str, Any], dtype: str, where: str) -> MiniCpmV46Tower | FineTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    return _opened(data, dtype, where, "16x")


def open_minicpm_ocr(data: Mapping[str, Any], dtype: str, where: str) -> MiniCpmV46Tower | FineTower:
    """Raises: as open_minicpmv4_6()."""
    return _opened(data, dtype, where, "4x")


def _opened(data: Mapping[str, Any], dtype: str, where: str, default: str) -> MiniCpmV46Tower | FineTower:
    """Args: default: of downsample_mode."""
    fields, whole = vision_fields(data, where, (f"{data['model_type']}_vision",)), Fields(data, where)
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    size = fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 224)
    # the whole's decides
    at = whole.integer("insert_layer_id", 0, encoder.num_layers - 1, 6)
    fields.optional_integer("insert_layer_id", 0, encoder.num_layers - 1)
    fields.refuse_unread(IGNORABLE, {"window_kernel_size": ([_MERGE, _MERGE],)})
    for key, only in (
        ("merge_kernel_size", [_MERGE, _MERGE]),
        ("merger_times", 1),
        ("drop_vision_last_layer", False),
    ):
        whole.only(key, only)
    mode, side = whole.text("downsample_mode", default), size // encoder.patch_size
    if mode == "4x":
        return FineTower(encoder, side, text_width(data, where))
    if mode != "16x":
        whole.unsupported("downsample_mode", mode, "supported: 16x, 4x")
    return MiniCpmV46Tower(encoder, _Before(encoder, at + 1, side), text_width(data, where))
