"""Gemma 4 12B: no tower at all. A patch of a picture, colours as they are, is normed and goes through one linear; what
is learned of its column and its row is added, then it is a row.

Found by tower.py. Source: Gemma Team 2026, Gemma 4, as transformers computes it.
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
from albireo.models.vision.encoder import EncoderSettings, linear, norm
from albireo.models.vision.patches import F32, grid_of, patch_rows
from albireo.models.vision.positions import checked_table, held, places
from albireo.models.vision.settings import IGNORABLE, MAX_PATCH_SIZE, MAX_WIDTH, text_width, vision_fields
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_EMBEDDER = "vision_embedder"
_TABLES = f"{_EMBEDDER}.pos_embedding"
#: Of the norms around the linear, as torch has it.
_LAYER_NORM_EPS = 1e-5
#: Far more than any picture has on a side.
_MAX_POSITIONS = 2**20


@dataclass(slots=True)
class Gemma4UnifiedTower(GivesRowsOnce):
    """Implements tower.VisionTower; the encoder has no layers.

    Fields: num_positions: rows of either table of positions. width: of a row. tables: [num_positions, 2, E] of columns
    and of rows, once held.
    """

    encoder: EncoderSettings
    num_positions: int
    width: int
    tables: F32 | None = field(default=None, kw_only=True)
    merge: int = field(default=1, init=False)

    host_tensors = (_TABLES,)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width = self.encoder.hidden_size
        table = checked_table(tensors, _TABLES, self.num_positions, 2 * width)
        self.tables = table.reshape(self.num_positions, 2, width)

    def patches(self, height: int, width: int) -> int:
        if max(height, width) > self.num_positions * self.encoder.patch_size:
            raise InvariantError(
                f"a tile of {height} x {width} pixels; there are positions of {self.num_positions} patches on a side"
            )
        rows, columns = grid_of(height, width, self.encoder.patch_size)
        return rows * columns

    def inputs(self, tile: F32) -> TowerInputs:
        tables = held(self.tables, "a table of positions")
        height, width, _ = tile.shape
        self.patches(height, width)
        grid = grid_of(height, width, self.encoder.patch_size)
        rows, columns = places(grid).reshape(-1, 2).T
        positions = tables[columns, 0] + tables[rows, 1]
        return TowerInputs((patch_rows(tile, self.encoder.patch_size, is_channel_last=True), positions), grid)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = norm(b, c, b.given(c.patch_width, 0), f"{_EMBEDDER}.patch_ln1", _LAYER_NORM_EPS)
            x = linear(b, c, x, f"{_EMBEDDER}.patch_dense", c.hidden_size, "patches")
            with b.part("further"):
                x = norm(b, c, x, f"{_EMBEDDER}.patch_ln2", _LAYER_NORM_EPS)
        with b.part("positions"):
            x = norm(b, c, b.add(x, b.given(c.hidden_size, 1)), f"{_EMBEDDER}.pos_norm", _LAYER_NORM_EPS)
        return pooled_states(b, x)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("norm"):
            x = b.rms_norm(b.given(c.hidden_size, 0), None, c.eps)
        name = "embed_vision.embedding_projection"
        return pooled_states(b, linear(b, c, x, name, self.width, "down", False))


def open_gemma4_unified(data: Mapping[str, Any], dtype: str, where: str) -> Gemma4UnifiedTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("gemma4_unified_vision",))
    side = fields.integer("patch_size", 1, MAX_PATCH_SIZE, 16) * fields.integer("pooling_kernel_size", 1, 16, 3)
    width = fields.integer("mm_embed_dim", 1, MAX_WIDTH, 3840)
    eps = fields.number("rms_norm_eps", 1e-30, 1.0, 1e-6)
    positions = fields.integer("mm_posemb_size", 1, _MAX_POSITIONS, 1120)
    _require(fields, "output_proj_dims", width, 3840)
    _require(fields, "model_patch_size", side, side)
    # how many rows a picture has, whoever prepares it decides
    fields.refuse_unread(IGNORABLE | keys("num_soft_tokens"), {})
    # of layers there are none
    encoder = EncoderSettings(width, width, 0, 1, side, "gelu", eps, dtype)
    return Gemma4UnifiedTower(encoder, positions, text_width(data, where, 2304))


def _require(fields: Fields, key: str, wanted: int, default: int) -> None:
    """Raises: UnsupportedModel where a key does not say what others do."""
    given = fields.integer(key, 1, 2**31, default)
    if given != wanted:
        fields.unsupported(key, given, f"as other keys have it, it is {wanted}")
