"""MiniCPM-V 2.5, 2.6, 4 and 4.5, MiniCPM-o: SigLIP of tiles of any grid, and learned rows that ask its patches once, so
that as many rows are left of any tile.

Found by tower.py. Patches, what asks and attention are the tower's stem. What asks stands in the rows of the first
patches, whose own queries nobody reads: so it sees patches alone, and not what else asks. Keys have waves of a patch's
line and column added, values have not. Source: Yao et al. 2024, MiniCPM-V, and its authors' code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.stem import Stem
from albireo.models.settings.minicpmv import FIRST
from albireo.models.vision.encoder import EncoderSettings, embedded, layers, linear, norm, rounded_norm, summed
from albireo.models.vision.patches import F32, Grid, Sequences, grid_of, patch_rows
from albireo.models.vision.perceiver import halves
from albireo.models.vision.positions import checked_table, held, stretched
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, NAMES
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_TOWER, _RESAMPLER = "vision_model", "resampler"
_TABLE = f"{_TOWER}.embeddings.position_embedding.weight"
_LATENTS = f"{_RESAMPLER}.query.weight"
#: Of norms of the resampler; numbers of a head of it; of waves, the longest.
_EPS, _HEAD, _BASE = 1e-6, 128, 10000.0
#: Patches of the largest tile, at least.
_FEWEST = 16


@dataclass(slots=True)
class _Before:
    """Implements stem.Stem, of one tile. It gives what attention gave what asks.

    Fields: encoder: of patches. asks: width and heads of what asks. count: of that. side: of the table of positions
    [side * side, E]. most: patches of a tile at most. is_one_line: patches have the positions of one line of all of
    them. table: of positions; latents [count, width]: once held.
    """

    encoder: EncoderSettings
    asks: EncoderSettings
    count: int
    side: int
    most: int
    is_one_line: bool = False
    table: F32 | None = field(default=None, kw_only=True)
    latents: F32 | None = field(default=None, kw_only=True)
    _given: tuple[F32, ...] = field(default=(), init=False)
    _seen: F32 | None = field(default=None, init=False)

    def grid(self, height: int, width: int) -> Grid:
        """Lines and columns of patches. Raises: InvariantError for a tile that is too large."""
        grid = grid_of(height, width, self.encoder.patch_size)
        if grid[0] * grid[1] > self.most:
            raise InvariantError(f"a tile of {height} x {width} pixels; this tower reads up to {self.most} patches")
        return grid

    def graphs(self) -> tuple[Graph, ...]:
        """Keys and values of patches; queries of what asks; attention."""
        b, c, width = GraphBuilder(), self.encoder, self.asks.hidden_size
        x = embedded(b, c, f"{_TOWER}.embeddings.patch_embedding")
        x = layers(b, c, x, f"{_TOWER}.encoder.layers", NAMES)
        with b.part("head"):
            x = norm(b, c, x, f"{_TOWER}.post_layernorm")
            if c.hidden_size != width:
                x = linear(b, c, x, f"{_RESAMPLER}.kv_proj", width, "kv_proj", False)
            x = norm(b, self.asks, x, f"{_RESAMPLER}.ln_kv")
            with b.part("places"):
                placed = b.add(x, b.given(width, 2))
            k = linear(b, c, placed, f"{_RESAMPLER}.attention.k_proj", width, "k")
            v = linear(b, c, x, f"{_RESAMPLER}.attention.v_proj", width, "v")
            patches = pooled_states(b, b.join_heads(k, v, 1))
        b = GraphBuilder()
        with b.part("asks"):
            x = rounded_norm(b, self.asks, b.given(width, 0), f"{_RESAMPLER}.ln_q")
            asked = pooled_states(b, linear(b, c, x, f"{_RESAMPLER}.attention.q_proj", width, "q"))
        b = GraphBuilder()
        q, k, v = (b.given(width, place) for place in range(3))
        with b.part("kv"):
            b.kv_write(k, v, 0, self.asks.kv_heads, _HEAD)
        return patches, asked, pooled_states(b, summed(b, self.asks, q, both_ways=True))

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return self.most, self.count, max(self.most, 2 * self.count)

    def pieces(self, tile: F32) -> Iterator[F32]:
        grid, patch = self.grid(*tile.shape[:2]), self.encoder.patch_size
        of_table = (1, grid[0] * grid[1]) if self.is_one_line else grid
        lines, columns = (stretched(count, count, self.side) for count in of_table)
        places = (lines[:, None] * self.side + columns).reshape(-1)
        self._given = patch_rows(tile, patch), held(self.table, _TABLE)[places], waves(grid, self.asks.hidden_size)
        yield self._given[0]

    def sequences(self, number: int, rows: int) -> Sequences:
        return ()

    def given(self, number: int, rows: F32) -> tuple[tuple[F32, ...], F32 | None]:
        if number == 0:
            return self._given, None
        if number == 1:
            return (rows,), None
        queries, others = halves(rows, self.asks.hidden_size)
        return (queries, *halves(others, self.asks.hidden_size)), None

    def behind(self, number: int, hidden: F32) -> F32:
        if number == 0:
            self._seen = hidden.copy()
            return held(self.latents, _LATENTS)
        if number == 2:
            return np.ascontiguousarray(hidden[: self.count])
        assert self._seen is not None, "patches are computed first"
        # where there are fewer of them, each is there as often as all others, which changes no mean
        patches = np.tile(self._seen, (-(-self.count // len(self._seen)), 1))
        return np.concatenate([np.pad(hidden, ((0, len(patches) - self.count), (0, 0))), patches], axis=1)


def waves(grid: Grid, width: int) -> F32:
    """[T, width] of patches in reading order: sines, then cosines of a patch's column, then of its line, as their
    authors compute them."""
    speeds = np.arange(width // 4, dtype=np.float32) / np.float32(width / 4)
    speeds = np.asarray(1.0 / np.float32(_BASE) ** speeds, np.float32)
    of_lines, of_columns = (
        np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
        for angles in (np.arange(count, dtype=np.float32)[:, None] * speeds for count in grid)
    )
    found = np.empty((*grid, width), np.float32)
    found[..., : width // 2], found[..., width // 2 :] = of_columns, of_lines[:, None]
    return found.reshape(-1, width)


@dataclass(slots=True)
class MiniCpmVTower(GivesRowsOnce):
    """Implements tower.VisionTower. Its patches are the rows that ask. Fields: before: the stem. unread: see there."""

    before: _Before
    unread: tuple[str, ...] = ()

    host_tensors = (_TABLE, _LATENTS)

    @property
    def dtype(self) -> str:
        return self.before.encoder.dtype

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        return self.unread

    @property
    def stem(self) -> Stem:
        return self.before

    def hold(self, tensors: Mapping[str, F32]) -> None:
        own = self.before
        own.table = checked_table(tensors, _TABLE, own.side**2, own.encoder.hidden_size)
        own.latents = checked_table(tensors, _LATENTS, own.count, own.asks.hidden_size)

    def most_rows(self, patches: int) -> int:
        return patches

    def patches(self, height: int, width: int) -> int:
        self.before.grid(height, width)
        return self.before.count

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width)

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.before.asks
        return pooled_states(
            b, linear(b, c, b.given(c.hidden_size, 0), f"{_RESAMPLER}.attention.out_proj", c.hidden_size, "o")
        )

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.before.asks
        x = rounded_norm(b, c, b.given(c.hidden_size, 0), f"{_RESAMPLER}.ln_post")
        return pooled_states(b, linear(b, c, x, f"{_RESAMPLER}.proj", c.hidden_size, "projector", False))


def open_minicpmv(data: Mapping[str, Any], dtype: str, where: str) -> MiniCpmVTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    whole = Fields(data, where)
    fields = vision_fields(data, where, ("siglip", "siglip_vision_model", "idefics2"))
    encoder = encoder_settings(fields, dtype, {**DEFAULTS, "patch_size": 32})
    size = fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 224)
    fields.refuse_unread(IGNORABLE, {"attention_dropout": (0.0,)})
    width = text_width(data, where)
    if width % _HEAD:
        whole.unsupported("hidden_size", width, f"what asks has heads of {_HEAD}")
    count = whole.integer("query_num", 1, MAX_WIDTH, 64)
    unread: tuple[str, ...] = ()
    if whole.flag("drop_vision_last_layer", True):
        unread = (f"{_TOWER}.encoder.layers.{encoder.num_layers - 1}.*",)
        encoder = replace(encoder, num_layers=encoder.num_layers - 1)
    # sides of a tile are rounded to whole patches, of which a long one has some whatever a square has
    side = -(-whole.integer("image_size", 1, MAX_IMAGE_SIZE, 448) // encoder.patch_size) + 1
    most = max(side**2, _FEWEST)
    asks = replace(encoder, hidden_size=width, num_heads=width // _HEAD, eps=_EPS)
    is_one_line = whole.text("version") == FIRST
    return MiniCpmVTower(_Before(encoder, asks, count, size // encoder.patch_size, most, is_one_line), unread)
