"""Phi-3-vision and Phi-3.5-vision: CLIP of square blocks of a picture, of which 2 x 2 patches side by side become one
row, and two linears.

Found by tower.py. A tile is a whole picture in blocks, which do not see each other; one more, the whole of it made
small, is made here of the tile's numbers, as its authors make it. Rows of the blocks come first, line by line across
them, then those of the whole; a vector of the checkpoint stands behind each line, and another between the two, before
the linears. Source: Microsoft 2024, Phi-3 Technical Report, and its authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import mlp
from albireo.models.vision.llava import CLIP, CLIP_KEYS
from albireo.models.vision.llava_next import LlavaNextTower
from albireo.models.vision.patches import F32, Grid, Sequences, patch_rows, side_by_side
from albireo.models.vision.positions import checked_table, cubic_weights, held, resampled
from albireo.models.vision.settings import (
    IGNORABLE,
    encoder_settings,
    feature_layer,
    patches_on_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import TowerInputs

_TOWER = "vision_tower"
_CLASS, _TABLE = f"{_TOWER}.embeddings.class_embedding", f"{_TOWER}.embeddings.position_embedding.weight"
_BETWEEN, _BEHIND = "glb_GN", "sub_GN"
#: Patches on a side of what becomes a row.
_MERGE = 2


@dataclass(slots=True)
class Phi3VTower(LlavaNextTower):
    """Implements tower.VisionTower. Fields: between: [1, 4 E] the vector between blocks and whole, once held."""

    between: F32 | None = field(default=None, kw_only=True)

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return _BETWEEN, _BEHIND, _TABLE, _CLASS

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width = self.encoder.hidden_size
        lines = {name: tensors[name].reshape(1, -1) for name in (_BETWEEN, _BEHIND, _CLASS)}
        self.between, self.newline = (checked_table(lines, name, 1, _MERGE**2 * width) for name in (_BETWEEN, _BEHIND))
        table = checked_table(tensors, _TABLE, self.of_block, width)
        self.positions = np.concatenate([table[:1] + checked_table(lines, _CLASS, 1, width), table[1:]])

    @property
    def row_side(self) -> int:
        return self.side // _MERGE

    def _blocks(self, height: int, width: int) -> Grid:
        """Rows and columns of blocks. Raises: InvariantError for a tile that is none."""
        if min(height, width) < self.block or height % self.block or width % self.block:
            raise InvariantError(f"a tile of {height} x {width} pixels is no blocks of {self.block} x {self.block}")
        return height // self.block, width // self.block

    def patches(self, height: int, width: int) -> int:
        rows, columns = self._blocks(height, width)
        return (1 + rows * columns) * self.of_block

    def sequences(self, height: int, width: int) -> Sequences:
        return ((self.of_block,) * (self.patches(height, width) // self.of_block),)

    def rows(self, height: int, width: int) -> int:
        rows, columns = self._blocks(height, width)
        side = self.row_side
        return rows * side * (columns * side + 1) + 1 + side * (side + 1)

    def most_rows(self, patches: int) -> int:
        """A line of one row has another behind it."""
        return max(1, patches // 2)

    def inputs(self, tile: F32) -> TowerInputs:
        """The class comes as a patch of zeros, see square.ClassTower."""
        (rows, columns), block = self._blocks(*tile.shape[:2]), self.block
        of_lines, of_columns = (cubic_weights(block, count) for count in tile.shape[:2])
        whole = np.ascontiguousarray(resampled(tile.reshape(-1, 3), of_lines, of_columns))
        corners = [(row * block, column * block) for row in range(rows) for column in range(columns)]
        none = np.zeros((1, self.encoder.patch_width), np.float32)
        cut = [whole, *(tile[top : top + block, left : left + block] for top, left in corners)]
        patches = [each for pixels in cut for each in (none, patch_rows(pixels, self.encoder.patch_size))]
        positions = np.tile(held(self.positions, _TABLE), (len(cut), 1))
        return TowerInputs((np.concatenate(patches), positions), (tile.shape[0], tile.shape[1]))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        (rows, columns), side = self._blocks(*grid), self.row_side
        blocks = hidden.reshape(1 + rows * columns, self.of_block, -1)[:, 1:]
        merged = np.stack([side_by_side(each, (self.side, self.side), _MERGE) for each in blocks])
        width = merged.shape[-1]
        across = merged[1:].reshape(rows, columns, side, side, width).transpose(0, 2, 1, 3, 4)
        lines = self.with_newlines(across.reshape(rows * side, columns * side, width))
        whole = self.with_newlines(merged[0].reshape(side, side, width))
        return np.concatenate([lines, held(self.between, _BETWEEN), whole])

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        return rows

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(_MERGE**2 * c.hidden_size, 0)
        return pooled_states(b, mlp(b, c, x, "multi_modal_projector", (self.width, self.width), "gelu"))


def open_phi3_v(data: Mapping[str, Any], dtype: str, where: str) -> Phi3VTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = vision_fields(data, where, ("clip_vision_model",)), Fields(data, where)
    encoder = encoder_settings(fields, dtype, CLIP)
    side = patches_on_side(fields, encoder, 336, _MERGE)
    fields.refuse_unread(IGNORABLE | CLIP_KEYS, {})
    at = feature_layer(whole, encoder.num_layers, -2)
    return Phi3VTower(encoder, side * encoder.patch_size, True, (at,), text_width(data, where), "gelu", True)
