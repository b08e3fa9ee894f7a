"""SAM's image encoder, of square tiles of one size: windows that see themselves, and layers that see all, whose scores
have added what a query says of how many lines and how many columns a key is away.

Called by got_ocr2.py and deepseek_ocr.py. What is added is a sum over distances from -(S - 1) to S - 1, so one of waves
whose period is 2 S - 1. A wave of a difference is one of the query's place times one of the key's: to a head of D
channels are joined what the query says of each wave, turned by its place, and the wave at the key's place. So attention
adds it like any other channels, and no kernel knows of it. The mean of all distances adds the same to all keys of a
query, and is left out. Windows at the edges are filled up with zeros behind the norm, which keys of theirs see too;
where all see all, those are kept from sight by one more pair of channels.

Sources: Kirillov et al. 2023, Segment Anything; Li et al. 2022, MViTv2, section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import EncoderSettings, linear, mlp, norm, rounded_norm
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Sequences, one_size, patch_rows
from albireo.models.vision.positions import center_weights, resampled, smooth_cubic_weights

#: A query says so of what is kept from sight; less than the largest float16, far more than any score.
_HIDES = 32768.0
#: Channels of a head are a multiple of twice as many.
_STEP = 8
#: Of norms between convolutions.
_NECK_EPS = 1e-6
#: On a side of a convolution.
KERNEL = 3


def convolved(grid: F32, stride: int) -> F32:
    """[rows, 9 C] of a grid [H, W, C], zeros around it: what a convolution of 3 x 3 sees, channel by channel, as its
    weight is flattened."""
    padded = np.pad(grid, ((1, 1), (1, 1), (0, 0)))
    seen = np.lib.stride_tricks.sliding_window_view(padded, (KERNEL, KERNEL), axis=(0, 1))[::stride, ::stride]
    return np.ascontiguousarray(seen.reshape(seen.shape[0] * seen.shape[1], -1), np.float32)


@dataclass(slots=True)
class SamStem:
    """Implements stem.Stem: of a tile's patches, the encoder and its neck.

    Fields: prefix: of names. side: patches on that of a tile. window: on that of a window. sees_all: layers that do.
    channels: of the neck. has_positions: they are added to patches: positions [side * side, E], once held. table_side:
    patches on the side of tiles that tables are for, where it is another; 0: it is that one.
    """

    encoder: EncoderSettings
    prefix: str
    side: int
    window: int
    sees_all: frozenset[int]
    channels: int
    has_positions: bool
    table_side: int = 0
    positions: F32 | None = field(default=None, kw_only=True)

    @property
    def table(self) -> str:
        """Name of the tensor that positions are."""
        return f"{self.prefix}.pos_embed"

    @property
    def filled(self) -> int:
        """Patches on a side that windows fill."""
        return -(-self.side // self.window) * self.window

    @property
    def places(self) -> NDArray[np.int64]:
        """[T, 2] line and column of each row: window by window."""
        at = np.stack(np.meshgrid(*[np.arange(self.filled)] * 2, indexing="ij"), axis=-1)
        count = self.filled // self.window
        cut = at.reshape(count, self.window, count, self.window, 2).transpose(0, 2, 1, 3, 4)
        return cut.reshape(-1, 2)

    @property
    def is_there(self) -> NDArray[np.bool_]:
        """[T] of each row, whether it is a patch."""
        lines, columns = self.places.T
        there: NDArray[np.bool_] = np.maximum(lines, columns) < self.side
        return there

    @property
    def waves(self) -> tuple[int, int]:
        """Of windows, and where all see all: how many waves there are of an axis."""
        return self.window - 1, self.side - 1

    @property
    def head_dim(self) -> int:
        """Channels of a head, with those that are joined to it."""
        pairs = self.encoder.head_dim // 2 + 2 * sum(self.waves) + 1
        return 2 * _STEP * -(-pairs // _STEP)

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """Patterns of names of those that others are made of."""
        return (f"{self.prefix}.layers.*.attn.rel_pos_?",)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        if self.has_positions:
            side = self.table_side or self.side
            table = tensors[self.table].reshape(side**2, self.encoder.hidden_size)
            if side != self.side:
                weights = smooth_cubic_weights(self.side, side)
                table = resampled(table, weights, weights).reshape(self.side**2, -1)
            self.positions = np.ascontiguousarray(table, np.float32)

    def patches(self, height: int, width: int) -> int:
        """Of a tile. Raises: InvariantError for another size."""
        return one_size(height, width, self.side, self.encoder.patch_size)

    # -- stem.Stem ----------------------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        return self._encoder_graph(), self._neck_graph()

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return self.filled**2, self.side**2

    def pieces(self, tile: F32) -> Iterator[F32]:
        self.patches(*tile.shape[:2])
        yield self._filled(patch_rows(tile, self.encoder.patch_size))

    def sequences(self, number: int, rows: int) -> Sequences:
        return () if number else ((rows,), (self.window**2,) * (rows // self.window**2))

    def given(self, number: int, rows: F32) -> tuple[tuple[F32, ...], F32 | None]:
        """Of the encoder also positions, what windows are filled up with, and waves at each place."""
        if number:
            return (rows,), None
        width, there = self.encoder.hidden_size, self.is_there
        kept = np.repeat(there[:, None].astype(np.float32), width, axis=1)
        if not self.has_positions:
            return (rows, kept), self._turns(there)
        if self.positions is None:
            raise InvariantError(f"{self.table} is read before it is held")
        return (rows, kept, self._filled(self.positions)), self._turns(there)

    def behind(self, number: int, hidden: F32) -> F32:
        """What the neck's second convolution sees; then what the first one behind it does."""
        if not number:
            lines = np.empty((self.filled, self.filled, self.channels), np.float32)
            lines[tuple(self.places.T)] = hidden
            return convolved(lines[: self.side, : self.side], 1)
        return convolved(hidden.reshape(self.side, self.side, -1), 2)

    # -- what is made of tensors ---------------------------------------------------------------------------------------

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        """What becomes of a head's channels: of queries in each layer, of keys and of values; and what is added."""
        heads, width, wide = self.encoder.num_heads, self.encoder.head_dim, self.head_dim
        made = {
            self._made(number, "queries"): Made(
                (heads * wide, width),
                tuple(f"{self.prefix}.layers.{number}.attn.rel_pos_{axis}" for axis in "hw"),
                partial(self._of_queries, number in self.sees_all),
            )
            for number in range(self.encoder.num_layers)
        }
        made[self._made(None, "keys")] = Made((heads * wide, width), (), self._as_they_are)
        made[self._made(None, "values")] = Made((heads * wide, width), (), self._first)
        made[self._made(None, "added_keys")] = Made((1, heads * wide), (), partial(self._added, False))
        made[self._made(None, "added_queries")] = Made((1, heads * wide), (), partial(self._added, True))
        return made

    def _made(self, number: int | None, what: str) -> str:
        ending = f"_{self.side}" if self.table_side else ""
        return f"{self.prefix}.{'all' if number is None else number}.made_{what}{ending}"

    def _places_of(self, sees_all: bool) -> slice:
        """Among pairs of a head, those of waves."""
        first = self.encoder.head_dim // 2
        middle = first + 2 * self.waves[0]
        return slice(middle, middle + 2 * self.waves[1]) if sees_all else slice(first, middle)

    def _as_they_are(self) -> F32:
        """[H * wide, D]: channels i and i + D / 2 are pair i."""
        half, wide = self.encoder.head_dim // 2, self.head_dim
        found = np.zeros((wide, 2 * half), np.float32)
        found[np.arange(half), np.arange(half)] = 1.0
        found[wide // 2 + np.arange(half), half + np.arange(half)] = 1.0
        return np.tile(found, (self.encoder.num_heads, 1))

    def _first(self) -> F32:
        """[H * wide, D]: values, and zeros behind them."""
        found = np.eye(self.head_dim, self.encoder.head_dim, dtype=np.float32)
        return np.tile(found, (self.encoder.num_heads, 1))

    def _of_queries(self, sees_all: bool, of_lines: F32, of_columns: F32) -> F32:
        """[H * wide, D] of what a query says of distances, [2 S - 1, D] of either axis."""
        found = self._as_they_are().reshape(self.encoder.num_heads, self.head_dim, -1)
        at, half = self._places_of(sees_all), self.head_dim // 2
        # attention multiplies all of a score
        root = np.sqrt(self.encoder.head_dim)
        if sees_all and self.table_side:
            distances = center_weights(2 * self.side - 1, 2 * self.table_side - 1)
            of_lines, of_columns = (_between(table, distances) for table in (of_lines, of_columns))
        parts = [_amplitudes(table.astype(np.float64) * root) for table in (of_lines, of_columns)]
        even, odd = (np.concatenate([part[kind] for part in parts]) for kind in (0, 1))
        found[:, at] = even
        found[:, half + at.start : half + at.stop] = -odd
        return found.reshape(-1, self.encoder.head_dim).astype(np.float32)

    def _added(self, to_queries: bool) -> F32:
        """[1, H * wide]: of keys a wave at its place, and of those that are kept from sight; of queries what they say
        of these."""
        first, last = self._places_of(False).start, self._places_of(True).stop
        found = np.zeros(self.head_dim, np.float32)
        if to_queries:
            found[self.head_dim // 2 + last] = _HIDES
        else:
            found[first : last + 1] = 1.0
        return np.tile(found, self.encoder.num_heads)[None]

    def _turns(self, there: NDArray[np.bool_]) -> F32:
        """[T, wide] cosines, then sines, of each pair."""
        angles, places = np.zeros((len(there), self.head_dim // 2)), self.places
        for sees_all, side, at in ((False, self.window, places % self.window), (True, self.side, places)):
            steps = 2 * np.pi / (2 * side - 1) * np.arange(1, side)
            pairs = self._places_of(sees_all)
            angles[:, pairs] = np.concatenate([at[:, axis, None] * steps for axis in (0, 1)], axis=1)
        angles[~there, self._places_of(True).stop] = -np.pi / 2
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def _filled(self, rows: F32) -> F32:
        """[T, E] of rows of patches in reading order, zeros where there are none."""
        lines = np.zeros((self.filled, self.filled, rows.shape[1]), np.float32)
        lines[: self.side, : self.side] = rows.reshape(self.side, self.side, -1)
        return np.ascontiguousarray(lines[tuple(self.places.T)])

    # -- graphs --------------------------------------------------------------------------------------------------------

    def _encoder_graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            patches, name = b.given(c.patch_width, 0), f"{self.prefix}.patch_embed.projection"
            x, kept = linear(b, c, patches, name, c.hidden_size, "patches"), b.given(c.hidden_size, 1)
            if self.has_positions:
                with b.part("positions"):
                    x = b.add(x, b.given(c.hidden_size, 2))
        for number in range(c.num_layers):
            x = self._layer(b, x, kept, number)
        with b.part("neck"):
            x = linear(b, c, x, f"{self.prefix}.neck.conv1", self.channels, "first", False)
            x = norm(b, c, x, f"{self.prefix}.neck.layer_norm1", _NECK_EPS)
        return pooled_states(b, x)

    def _neck_graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("neck"):
            x, name = b.given(self.channels * KERNEL**2, 0), f"{self.prefix}.neck.conv2"
            x = linear(b, c, x, name, self.channels, "second", False)
            x = norm(b, c, x, f"{self.prefix}.neck.layer_norm2", _NECK_EPS)
        return pooled_states(b, x)

    def _layer(self, b: GraphBuilder, x: Value, kept: Value, number: int) -> Value:
        c, name, sees_all = self.encoder, f"{self.prefix}.layers.{number}", number in self.sees_all
        with b.part(f"layers.{number}.attn"):
            h = norm(b, c, x, f"{name}.layer_norm1")
            h = b.cast(h if sees_all else b.mul(h, kept), c.dtype)
            q, k, v = (
                linear(
                    *(b, c, h, f"{name}.attn.{part}", c.hidden_size, part, c.has_qkv_bias),
                    (f"{name}.attn.qkv", place * c.hidden_size),
                )
                for place, part in enumerate("qkv")
            )
            a = self._attention(b, q, k, v, number, sees_all)
            o = linear(b, c, a, f"{name}.attn.proj", c.hidden_size, "o")
            with b.part("o"):
                x = b.add(x, o)
        with b.part(f"layers.{number}.mlp"):
            h, widths = rounded_norm(b, c, x, f"{name}.layer_norm2"), (c.intermediate_size, c.hidden_size)
            down = mlp(b, c, h, f"{name}.mlp", widths, c.act, parts=("lin1", "lin2"))
            with b.part("down"):
                return b.add(x, down)

    def _attention(self, b: GraphBuilder, q: Value, k: Value, v: Value, number: int, sees_all: bool) -> Value:
        c, heads, wide = self.encoder, self.encoder.num_heads, self.head_dim
        kv_layer = 0 if sees_all else 1

        def widened(x: Value, name: str) -> Value:
            weight = b.weight(name, (heads * wide, c.head_dim), c.dtype)
            return b.head_linear(b.cast(x, c.dtype), weight, heads)

        def added(x: Value, what: str) -> Value:
            return b.add(x, b.embed(b.token_ids, b.weight(self._made(None, what), (1, heads * wide), "float32")))

        with b.part("waves"):
            q = widened(q, self._made(number, "queries"))
            q = added(q, "added_queries") if sees_all else q
            k = added(widened(k, self._made(None, "keys")), "added_keys")
            v = widened(v, self._made(None, "values"))
        with b.part("rope"):
            still = RopeSpec((0.0,) * (wide // 2))
            q, k = b.rope(q, still, heads, wide), b.rope(k, still, heads, wide)
        with b.part("kv"):
            b.kv_write(k, v, kv_layer, heads, wide)
        with b.part("attention"):
            a = b.attention(
                b.cast(q, c.dtype),
                layer=kv_layer,
                num_heads=heads,
                num_kv_heads=heads,
                head_dim=wide,
                scale=c.head_dim**-0.5,
                window=None,
                softcap=None,
                both_ways=True,
                result_dim=c.head_dim,
            )
            return b.cast(a, c.dtype)


def _between(table: F32, weights: F32) -> F32:
    """[count, D] between entries of a table [n, D], by weights [count, n]. Not by a matrix product, see positions."""
    between: F32 = (weights[:, :, None] * table[None]).sum(axis=1, dtype=np.float32)
    return between


def _amplitudes(table: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[S - 1, D] each: of cosines and of sines, of what [2 S - 1, D] says of distances from -(S - 1) on. Without the
    mean."""
    count = len(table)
    side = (count + 1) // 2
    angles = 2 * np.pi / count * np.outer(np.arange(1, side), np.arange(count) - (side - 1))
    even, odd = ((wave[:, :, None] * table[None]).sum(axis=1) * 2 / count for wave in (np.cos(angles), np.sin(angles)))
    return even, odd
