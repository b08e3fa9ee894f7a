"""LLaVA-NeXT (1.6) and Granite Vision: CLIP or SigLIP of square blocks of a picture, states of one layer or of several
side by side, and two linears.

Found by tower.py. A tile is a whole picture (mosaic.py), whose blocks do not see each other. Rows of the whole picture
come first, then those of the blocks line by line across them, without what was added at their edges; behind each line
stands a vector of the checkpoint. Sources: Liu et al. 2024, LLaVA-NeXT; Granite Vision Team 2025, arXiv:2502.09927.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import EncoderSettings, embedded, layer, mlp, norm
from albireo.models.vision.llava import CLIP, CLIP_KEYS, side_by_side
from albireo.models.vision.mosaic import Mosaic
from albireo.models.vision.patches import F32, Grid, Sequences, patch_rows
from albireo.models.vision.positions import checked_table, held
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    activation,
    encoder_settings,
    feature_layers,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS as SIGLIP
from albireo.models.vision.siglip import NAMES
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_TOWER, _PROJECTOR, _NEWLINE = "vision_tower", "multi_modal_projector", "image_newline"
_CLASS, _TABLE = f"{_TOWER}.embeddings.class_embedding", f"{_TOWER}.embeddings.position_embedding.weight"


@dataclass(slots=True)
class LlavaNextTower(GivesRowsOnce):
    """Implements tower.VisionTower.

    Fields: block: pixels on its side. has_class: the first patch of each block is a class, as of CLIP. layers: behind
    which states are taken. act, has_bias: of the projector. positions: [patches of a block, E], once held; newline
    [1, width], too.
    """

    encoder: EncoderSettings
    block: int
    has_class: bool
    layers: tuple[int, ...]
    width: int
    act: str
    has_bias: bool
    positions: F32 | None = field(default=None, kw_only=True)
    newline: F32 | None = field(default=None, kw_only=True)

    @property
    def side(self) -> int:
        """Patches on that of a block, whose last pixels may fill none."""
        return self.block // self.encoder.patch_size

    @property
    def row_side(self) -> int:
        """Rows on it."""
        return self.side

    @property
    def of_block(self) -> int:
        """Patches of it."""
        return self.side**2 + self.has_class

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return (_NEWLINE, _TABLE, _CLASS) if self.has_class else (_NEWLINE, _TABLE)

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        behind = range(max(self.layers), self.encoder.num_layers)
        return f"{_TOWER}.post_layernorm.*", *(f"{_TOWER}.encoder.layers.{number}.*" for number in behind)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width, rows = self.encoder.hidden_size, {name: tensors[name].reshape(1, -1) for name in self.host_tensors}
        self.newline = checked_table(rows, _NEWLINE, 1, self.width)
        self.positions = checked_table(tensors, _TABLE, self.of_block, width)
        if self.has_class:
            first = self.positions[:1] + checked_table(rows, _CLASS, 1, width)
            self.positions = np.concatenate([first, self.positions[1:]])

    def patches(self, height: int, width: int) -> int:
        return Mosaic.of(height, width, self.block).num_blocks * self.of_block

    def rows(self, height: int, width: int) -> int:
        lines, columns = Mosaic.of(height, width, self.block).grid(self.row_side)
        return self.row_side**2 + lines * (columns + 1)

    def most_rows(self, patches: int) -> int:
        return max(1, patches)

    def sequences(self, height: int, width: int) -> Sequences:
        return ((self.of_block,) * (self.patches(height, width) // self.of_block),)

    def most_sequences(self, patches: int) -> int:
        return max(1, patches // self.of_block)

    def inputs(self, tile: F32) -> TowerInputs:
        """The class comes as a patch of zeros, see square.ClassTower."""
        size, patch = (tile.shape[0], tile.shape[1]), self.encoder.patch_size
        mosaic, filled = Mosaic.of(*size, self.block), self.side * patch
        mosaic.grid(self.row_side)
        none = np.zeros((int(self.has_class), self.encoder.patch_width), np.float32)
        cut = [patch_rows(each[:filled, :filled], patch) for each in mosaic.blocks(tile, self.block)]
        patches = np.concatenate([rows for each in cut for rows in (none, each)])
        return TowerInputs((patches, np.tile(held(self.positions, _TABLE), (mosaic.num_blocks, 1))), size)

    def graph(self) -> Graph:
        b = GraphBuilder()
        return pooled_states(b, side_by_side(b, self.states(b), self.layers))

    def states(self, b: GraphBuilder) -> dict[int, Value]:
        """Behind each layer, by how many there are."""
        c = self.encoder
        x = embedded(b, c, f"{_TOWER}.embeddings.patch_embedding", not self.has_class)
        if self.has_class:
            with b.part("embed"):
                x = norm(b, c, x, f"{_TOWER}.pre_layrnorm")
        states = {}
        for number in range(max(self.layers)):
            x = states[number + 1] = layer(b, c, x, number, f"{_TOWER}.encoder.layers", NAMES)
        return states

    def joined(self, hidden: F32, grid: Grid) -> F32:
        mosaic, side = Mosaic.of(*grid, self.block), self.side
        blocks = hidden.reshape(mosaic.num_blocks, self.of_block, -1)[:, int(self.has_class) :]
        return np.concatenate([blocks[0], self.kept(blocks[1:], mosaic, side)])

    def kept(self, blocks: F32, mosaic: Mosaic, side: int) -> F32:
        """[high * wide, any] rows of blocks line by line across them, without what is left out."""
        others = blocks.reshape(mosaic.rows, mosaic.columns, side, side, -1)
        lines = others.transpose(0, 2, 1, 3, 4).reshape(mosaic.rows * side, mosaic.columns * side, -1)
        high, wide = mosaic.grid(side)
        kept = lines[mosaic.lines : mosaic.lines + high, mosaic.sides : mosaic.sides + wide]
        return kept.reshape(high * wide, -1)

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        lines = rows[self.side**2 :].reshape(*Mosaic.of(*grid, self.block).grid(self.side), self.width)
        return np.concatenate([rows[: self.side**2], self.with_newlines(lines)])

    def with_newlines(self, lines: F32) -> F32:
        """[high * (wide + 1), ..., E] of rows [high, wide, ..., E] of a picture's blocks."""
        behind = np.broadcast_to(held(self.newline, _NEWLINE), (len(lines), 1, *lines.shape[2:]))
        return np.concatenate([lines, behind], axis=1).reshape(-1, *lines.shape[2:])

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size * len(self.layers), 0)
        return pooled_states(b, mlp(b, c, x, _PROJECTOR, (self.width, self.width), self.act, self.has_bias))


def open_llava_next(data: Mapping[str, Any], dtype: str, where: str) -> LlavaNextTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    tower = next_tower(data, dtype, where)
    return replace(tower, layers=feature_layers(Fields(data, where), tower.encoder.num_layers, -2))


def next_tower(data: Mapping[str, Any], dtype: str, where: str) -> LlavaNextTower:
    """One that no layers' states are taken of yet. Raises: as open_llava_next()."""
    fields = vision_fields(data, where, ("clip_vision_model", "siglip_vision_model"), are_apart=True)
    whole = Fields(data, where)
    has_class = fields.text("model_type", "clip_vision_model") == "clip_vision_model"
    encoder = encoder_settings(fields, dtype, CLIP if has_class else SIGLIP)
    size = fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 224)
    # a head would pool patches, and is not asked for rows; how parts were once put together, there is one way
    fields.refuse_unread(IGNORABLE | CLIP_KEYS | keys("vision_use_head image_grid_pinpoints mm_patch_merge_type"), {})
    strategy, wanted = whole.text("vision_feature_select_strategy", "default"), "default" if has_class else "full"
    if strategy != wanted:
        whole.unsupported("vision_feature_select_strategy", strategy, f"supported: {wanted}, all patches and no class")
    return LlavaNextTower(
        encoder,
        size,
        has_class,
        (),
        text_width(data, where, 4096),
        activation(whole, "projector_hidden_act", "gelu"),
        whole.flag("multimodal_projector_bias", True),
    )
