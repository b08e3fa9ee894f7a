"""Gemma 4: patches of any grid, rotated by row and column beside learned positions of both; means of blocks of patches.

Found by tower.py. Queries, keys and values are normed by heads, attention and FFN have a norm on both sides. What is
turned by one axis lies in two quarters of a head side by side, so rows of queries and keys are taken in the order of
pairs (i, i + D/2). Numbers before and behind a linear may be clipped, between bounds that the checkpoint has.
Source: Gemma Team 2026, Gemma 4, as transformers computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import keys
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.config_keys import MAX_HEAD_DIM
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, embedded, linear, norm
from albireo.models.vision.patches import F32, Grid, blocks, grid_of, merged_patches, patch_rows
from albireo.models.vision.positions import axial_theta, checked_table, held, places, rotations
from albireo.models.vision.settings import IGNORABLE, MAX_HEADS, encoder_settings, text_width, vision_fields
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_KEYS = {"hidden_act": "hidden_activation", "layer_norm_eps": "rms_norm_eps"}
_DEFAULTS = sizes(768, 3072, 16, 12, patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
_EMBEDDER = "vision_tower.patch_embedder"
_TABLES = f"{_EMBEDDER}.position_embedding_table"
_SHIFT, _GAIN = "vision_tower.std_bias", "vision_tower.std_scale"
#: Far more than any picture has on a side.
_MAX_POSITIONS = 2**20
#: How many rows a picture has, which whoever prepares it decides; and positions of texts.
_OF_OTHERS = keys("default_output_length image_seq_length video_seq_length max_position_embeddings")


@dataclass(frozen=True, slots=True)
class Heads:
    """Of attention. Fields: count: of queries; shared: of keys and values. theta: base of frequencies."""

    count: int
    shared: int
    dim: int
    theta: float

    def rows(self, name: str, count: int) -> tuple[RowSegment, ...]:
        """Rows of a tensor that has those of count heads: of each, its quarters in the order of what turns together.

        The first two quarters turn by columns, the others by rows; pairs that turn by rows are to come first.
        """
        size = self.dim // 4
        firsts = (self.dim * head + size * quarter for head in range(count) for quarter in (2, 0, 3, 1))
        return tuple(RowSegment(name, first, first + size) for first in firsts)


@dataclass(slots=True)
class Gemma4Tower(GivesRowsOnce):
    """Implements tower.VisionTower.

    Fields: merge: patches on a side of what becomes one row. num_positions: rows of either table of positions.
    is_clipped: numbers are, before and behind linears of layers. is_standardized: means are shifted and scaled number
    by number. width: of a row. tables: [2, num_positions, E] of columns, then of rows, once held; so are shift and
    gain [1, E].
    """

    encoder: EncoderSettings
    heads: Heads
    merge: int
    num_positions: int
    is_clipped: bool
    is_standardized: bool
    width: int
    tables: F32 | None = field(default=None, kw_only=True)
    shift: F32 | None = field(default=None, kw_only=True)
    gain: F32 | None = field(default=None, kw_only=True)

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return (_TABLES, _SHIFT, _GAIN) if self.is_standardized else (_TABLES,)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width = self.encoder.hidden_size
        table = checked_table(tensors, _TABLES, 2, self.num_positions * width)
        self.tables = table.reshape(2, self.num_positions, width)
        if self.is_standardized:
            vectors = {name: tensors[name].reshape(1, -1) for name in (_SHIFT, _GAIN)}
            self.shift, self.gain = (checked_table(vectors, name, 1, width) for name in vectors)

    def patches(self, height: int, width: int) -> int:
        if max(height, width) > self.num_positions * self.encoder.patch_size:
            raise InvariantError(
                f"a tile of {height} x {width} pixels; there are positions of {self.num_positions} patches on a side"
            )
        return merged_patches(height, width, self.encoder.patch_size, self.merge)

    def inputs(self, tile: F32) -> TowerInputs:
        tables = held(self.tables, "a table of positions")
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid = grid_of(height, width, c.patch_size)
        at, of_axis = places(grid), base_frequencies(self.heads.theta, self.heads.dim // 2)
        rows, columns = at.reshape(-1, 2).T
        positions = tables[0, columns] + tables[1, rows]
        colours = np.float32(2.0) * (tile - np.float32(0.5))
        patches = patch_rows(colours, c.patch_size, is_channel_last=True)
        return TowerInputs((patches, positions), grid, rotations(at, of_axis, of_axis))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, f"{_EMBEDDER}.input_proj", False)
        for number in range(c.num_layers):
            x = self._layer(b, x, number)
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        means = blocks(hidden, grid, self.merge).mean(axis=(2, 3), dtype=np.float32)
        scaled: F32 = means.reshape(-1, hidden.shape[1]) * np.float32(hidden.shape[1] ** 0.5)
        if self.shift is None or self.gain is None:
            return scaled
        standardized: F32 = (scaled - self.shift) * self.gain
        return standardized

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("norm"):
            x = b.rms_norm(b.given(c.hidden_size, 0), None, c.eps)
        return pooled_states(b, linear(b, c, x, "embed_vision.embedding_projection", self.width, "down", False))

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"vision_tower.encoder.layers.{number}"
        with b.part(f"layers.{number}.attn"):
            h = self._normed(b, x, f"{name}.input_layernorm")
            o = self._linear(b, self._attention(b, h, f"{name}.self_attn"), f"{name}.self_attn.o_proj", c.hidden_size)
            x = b.add(x, norm(b, c, o, f"{name}.post_attention_layernorm"))
        with b.part(f"layers.{number}.mlp"):
            h = self._normed(b, x, f"{name}.pre_feedforward_layernorm")
            gate, up = (self._linear(b, h, f"{name}.mlp.{part}_proj", c.intermediate_size) for part in ("gate", "up"))
            with b.part("act"):
                m = b.mul(activated(b, gate, c.act), up)
            down = self._linear(b, m, f"{name}.mlp.down_proj", c.hidden_size)
            return b.add(x, norm(b, c, down, f"{name}.post_feedforward_layernorm"))

    def _normed(self, b: GraphBuilder, x: Value, name: str) -> Value:
        """As all linears read it that read it: bounds are of each."""
        h = norm(b, self.encoder, x, name)
        return h if self.is_clipped else b.cast(h, self.encoder.dtype)

    def _attention(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c, heads, still = self.encoder, self.heads, RopeSpec((0.0,) * (self.heads.dim // 2))
        parts = {}
        for p, count in (("q", heads.count), ("k", heads.shared), ("v", heads.shared)):
            is_turned = p != "v"
            x = self._linear(b, h, f"{name}.{p}_proj", count * heads.dim, count if is_turned else 0)
            with b.part(f"{p}_norm"):
                weight = None
                if is_turned:
                    of_norm = f"{name}.{p}_norm.weight"
                    weight = b.weight(of_norm, (heads.dim,), "float32", segments=heads.rows(of_norm, 1))
                x = b.rms_norm(x, weight, c.eps, num_heads=count)
                parts[p] = b.rope(x, still, count, heads.dim) if is_turned else x
        with b.part("kv"):
            b.kv_write(parts["k"], parts["v"], 0, heads.shared, heads.dim)
        with b.part("attention"):
            return b.attention(
                b.cast(parts["q"], c.dtype),
                layer=0,
                num_heads=heads.count,
                num_kv_heads=heads.shared,
                head_dim=heads.dim,
                scale=1.0,
                window=None,
                softcap=None,
                both_ways=True,
            )

    def _linear(self, b: GraphBuilder, x: Value, name: str, width: int, turned: int = 0) -> Value:
        """[T, width] float32 of x. Args: turned: heads whose rows are taken in another order; 0: as they lie."""
        c, of_weight = self.encoder, f"{name}.linear.weight"
        with b.part(name.rpartition(".")[2]):
            x = b.cast(self._clipped(b, x, f"{name}.input"), c.dtype)
            segments = self.heads.rows(of_weight, turned) if turned else ()
            x = b.linear(x, b.weight(of_weight, (width, int(x.type.dims[-1])), c.dtype, segments=segments))
            return self._clipped(b, x, f"{name}.output")

    def _clipped(self, b: GraphBuilder, x: Value, name: str) -> Value:
        if not self.is_clipped:
            return x
        bounds = tuple(RowSegment(f"{name}_{end}", 0, 1) for end in ("min", "max"))
        return b.clamp(x, b.weight(name, (2,), "float32", segments=bounds))


def open_gemma4(data: Mapping[str, Any], dtype: str, where: str) -> Gemma4Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("gemma4_vision",), _KEYS)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, is_rms=True, has_bias=False)
    count, shared = encoder.num_heads, fields.integer("num_key_value_heads", 1, MAX_HEADS, 12)
    dim = fields.integer("head_dim", 1, MAX_HEAD_DIM, 64)
    if count % shared:
        fields.fail("num_key_value_heads", shared, f"must divide num_attention_heads={count}")
    if dim % 4:
        fields.unsupported("head_dim", dim, "heads must be four equal parts, which are turned by row and column")
    heads = Heads(count, shared, dim, axial_theta(fields, 100.0))
    found = Gemma4Tower(
        encoder,
        heads,
        # of patches that are not put together transformers makes no rows
        fields.integer("pooling_kernel_size", 2, 16, 3),
        fields.integer("position_embedding_size", 1, _MAX_POSITIONS, 10240),
        fields.flag("use_clipped_linears", False),
        fields.flag("standardize", False),
        text_width(data, where, 2304),
    )
    # all layers are alike, whatever is said of some of them
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, {"attention_bias": (False,), "global_head_dim": (dim,)})
    return found
