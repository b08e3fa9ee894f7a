"""Qwen3-VL and Qwen3.5: positions resampled and rotated to any grid, and a merger of blocks of 2 x 2 patches.

Found by tower.py. Patches are in the order of blocks, so that what becomes one row lies side by side. A tile is two
frames, of a picture two that are alike; patches see none of other tiles. Source: Bai et al. 2025, Qwen3-VL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_GIVEN
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import IN_ONE, EncoderSettings, embedded, layer, mlp, norm
from albireo.models.vision.patches import F32, Grid, grid_of, in_blocks, patches_in_time
from albireo.models.vision.positions import (
    axial_theta,
    checked_table,
    corner_weights,
    held,
    places,
    resampled,
    rotations,
)
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_WIDTH,
    check_quarters,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import InBlocks, TowerInputs

_NAMES = IN_ONE._replace(up="mlp.linear_fc1", down="mlp.linear_fc2")
_KEYS = {"num_channels": "in_channels", "num_hidden_layers": "depth", "num_attention_heads": "num_heads"}
_DEFAULTS = sizes(1152, 4304, 27, 16, patch_size=16, hidden_act="gelu_pytorch_tanh")
_TABLE = "visual.pos_embed.weight"


class _MergerNames(NamedTuple):
    """What a checkpoint calls what makes rows of blocks of patches. Fields: deep: where those are whose rows go deeper,
    in front of their numbers. Others: of the parts of each."""

    deep: str
    norm: str
    up: str
    down: str


_MERGER = _MergerNames("visual.deepstack_merger_list", "norm", "linear_fc1", "linear_fc2")
_OMNI = "qwen3_omni"
#: Of whose tower nothing is computed from these.
_OF_OMNI = keys("deepstack_visual_indexes image_size tokens_per_second spatial_patch_size window_size init_std")
_OMNI_MERGER = _MergerNames("visual.merger_list", "ln_q", "mlp.0", "mlp.2")


@dataclass(slots=True)
class Qwen3VLTower(InBlocks):
    """Implements tower.VisionTower. Fields: side: of the table of positions. frames: that a patch has. merge: patches
    on a side of what becomes one row. theta: base of frequencies. deep: layers whose states the first layers of the
    language model are given, one each (DeepStack). names: of mergers. table: [side * side, E] positions, once held."""

    encoder: EncoderSettings
    side: int
    frames: int
    merge: int
    theta: float
    width: int
    deep: tuple[int, ...] = ()
    names: _MergerNames = _MERGER
    table: F32 | None = None

    host_tensors = (_TABLE,)

    @property
    def deep_layers(self) -> tuple[int, ...]:
        return tuple(range(len(self.deep)))

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.table = checked_table(tensors, _TABLE, self.side**2, self.encoder.hidden_size)

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid = grid_of(height, width, c.patch_size)
        patches = patches_in_time(tile, c.patch_size, self.frames)
        positions = resampled(held(self.table, _TABLE), *(corner_weights(count, self.side) for count in grid))
        each = base_frequencies(self.theta, c.head_dim // 2)
        turns = rotations(places(grid), each, each)
        patches, positions, turns = (in_blocks(rows, grid, self.merge) for rows in (patches, positions, turns))
        return TowerInputs((patches, positions), grid, turns)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, "visual.patch_embed.proj", width=c.patch_width * self.frames)
        states = {}
        for number in range(c.num_layers):
            x = states[number] = layer(b, c, x, number, "visual.blocks", _NAMES)
        with b.part("head"):
            x = norm(b, c, x, f"visual.merger.{self.names.norm}")
            for number in self.deep:
                x = b.join_heads(x, states[number], 1)
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        parts = np.split(hidden, 1 + len(self.deep), axis=1)
        return np.concatenate([part.reshape(len(hidden) // self.merge**2, -1) for part in parts], axis=1)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        width = c.hidden_size * self.merge**2
        x = b.given(width * (1 + len(self.deep)), 0)
        first, *others = (x,) if not self.deep else b.split(x, (width,) * (1 + len(self.deep)))
        rows = self._merged(b, first, "visual.merger")
        for place, part in enumerate(others):
            name = f"{self.names.deep}.{place}"
            with b.part(f"deep.{place}"):
                rows = b.join_heads(rows, self._merged(b, norm(b, c, part, f"{name}.{self.names.norm}"), name), 1)
        return pooled_states(b, rows)

    def _merged(self, b: GraphBuilder, x: Value, name: str) -> Value:
        """Rows of the language model's width, of blocks of patches."""
        widths, parts = (int(x.type.dims[-1]), self.width), (self.names.up, self.names.down)
        return mlp(b, self.encoder, x, name, widths, "gelu", parts=parts)


def open_qwen3_vl(data: Mapping[str, Any], dtype: str, where: str) -> Qwen3VLTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    kind = data["model_type"]
    fields = vision_fields(data, where, (f"{kind}_vision", kind, f"{kind}_vision_encoder"), _KEYS)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=1e-6)
    table = fields.integer("num_position_embeddings", 1, MAX_WIDTH, 2304)
    frames = fields.integer("temporal_patch_size", 1, 16, 2)
    merge = fields.integer("spatial_merge_size", 1, 16, 2)
    width, of_text = fields.integer("out_hidden_size", 1, MAX_WIDTH, 3584), text_width(data, where)
    deep = _deep(fields, kind, encoder.num_layers)
    check_quarters(fields, encoder)
    theta = axial_theta(fields)
    is_omni = kind.startswith(_OMNI)
    fields.refuse_unread(
        IGNORABLE | (_OF_OMNI if is_omni else keys("deepstack_visual_indexes")),
        {"apply_vit_abs_pos_embed": (True,), "in_chans": (3,)},
    )
    side = int(table**0.5)
    if side * side != table:
        fields.fail("num_position_embeddings", table, "must be a square")
    if width != of_text:
        fields.fail("out_hidden_size", width, f"must be text_config.hidden_size={of_text}")
    return Qwen3VLTower(encoder, side, frames, merge, theta, width, deep, _OMNI_MERGER if is_omni else _MERGER)


def _deep(fields: Fields, kind: str, num_layers: int) -> tuple[int, ...]:
    """Layers whose states go deeper, in order."""
    name = "deepstack_visual_indexes"
    given = fields.raw(name)
    if given is None:
        given = [8, 16, 24] if kind.startswith(("qwen3_vl", _OMNI)) else []
    is_list = isinstance(given, list) and all(type(each) is int and 0 <= each < num_layers for each in given)
    if not is_list or given != sorted(set(given)):
        fields.fail(name, given, f"must be numbers of the {num_layers} layers, in order")
    if len(given) >= MAX_GIVEN:
        fields.unsupported(name, given, f"at most {MAX_GIVEN - 1} layers go deeper")
    return tuple(given)
