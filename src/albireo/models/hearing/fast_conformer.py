"""FastConformer: frames made eighths of by convolutions, layers of attention by distance and of convolution.

Opened by the families that have it. A tile is a sound: frames are its rows. Depthwise convolutions of the stem are
computed by the host; in the layers, batch norms are folded into what is before them, and what positions add to scores
is a linear of queries whose rows are made of sines. Tensors have NeMo's names. Sources: Rekesh et al. 2023, Fast
Conformer; Gulati et al. 2020, Conformer; Dai et al. 2019, Transformer-XL.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.graph.op_numbers import MAX_DEPTHWISE_WIDTH
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.batch_norms import folded
from albireo.models.hearing.gated import gated
from albireo.models.hearing.settings import check_heads
from albireo.models.hearing.stem import KERNEL, STRIDE, SeesNothing, Stem, halved, windows
from albireo.models.hearing.taps import before_alone
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, convolution, linear, mlp, norm, rounded_norm, seen
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings
from albireo.models.vision.tower_inputs import GivesRowsOnce, RowAPatch, TowerInputs

#: Convolutions of the stem.
_HALVINGS = 3
_EPS, _SLOWEST = 1e-5, 10000.0
#: A score that leaves nothing of what has it.
_NEVER = -1e9
_PREFIX = "encoder"
#: Of what is told which language is spoken.
_ASKED = "prompt_projector"
#: Of its depthwise convolutions, in turn.
_DEPTHWISE = tuple(f"{_PREFIX}.pre_encode.conv.{3 * number + 2}" for number in range(_HALVINGS - 1))
_DEFAULTS = sizes(1024, 4096, 24, 8, hidden_act="silu", patch_size=1)


def _around(places: F32, is_causal: bool) -> F32:
    """Of each second of [frames, bands, channels] the nine places around it; or it and those before it, and of as many
    more as that makes; see windows()."""
    around = (2, 1) if is_causal else (1, 1)
    return windows(np.pad(places, (around, around, (0, 0))))


@dataclass(frozen=True, slots=True)
class _Stem(SeesNothing):
    """Implements stem.Stem. A tile is a piece. Fields: most: frames of the longest. held: of host_tensors. told: of the
    tile that is computed, what its last column says, where is_asked."""

    encoder: EncoderSettings
    num_bands: int
    channels: int
    most: int
    is_causal: bool
    is_asked: bool
    held: Mapping[str, F32]
    told: list[float] = field(default_factory=list)

    def graphs(self) -> tuple[Graph, ...]:
        return tuple(
            convolution(self.encoder, width, f"{_PREFIX}.pre_encode.conv.{3 * number}", self.channels, "relu")
            for number, width in enumerate((KERNEL**2, *(self.channels,) * (_HALVINGS - 1)))
        )

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return tuple(
            halved(self.most, times, self.is_causal) * halved(self.num_bands, times, self.is_causal)
            for times in range(1, _HALVINGS + 1)
        )

    def pieces(self, tile: F32) -> Iterator[F32]:
        self.told[:] = tile[:1, -1].tolist() if self.is_asked else []
        around = _around(tile[:, : self.num_bands, None], self.is_causal)
        yield around.reshape(-1, KERNEL**2)

    def behind(self, number: int, hidden: F32) -> F32:
        bands = halved(self.num_bands, number + 1, self.is_causal)
        places = hidden.reshape(-1, bands, self.channels)
        if number + 1 == _HALVINGS:
            # a row of each frame: all bands of a channel, as the linear behind reads them
            rows = places.transpose(0, 2, 1).reshape(len(places), -1)
            told = np.full((len(rows), len(self.told)), self.told, np.float32)
            return np.concatenate([rows, told], axis=1)
        if not self.held:
            raise InvariantError(f"{_DEPTHWISE[number]} is read before it is held")
        weight, bias = (self.held[f"{_DEPTHWISE[number]}.{kind}"] for kind in ("weight", "bias"))
        summed = np.einsum("tbijc,cij->tbc", _around(places, self.is_causal), weight.reshape(-1, KERNEL, KERNEL)) + bias
        return np.ascontiguousarray(summed.reshape(-1, self.channels), np.float32)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model is told of a sound, as one of several numbers beside each frame that is 1: which, a column says that
    a tile has behind its bands. Fields: count: of them. width: of the linear that reads them."""

    count: int
    width: int


@dataclass(slots=True)
class FastConformerTower(RowAPatch, GivesRowsOnce):
    """Implements tower.VisionTower.

    Fields: most_frames: of the longest sound. kernel: of the layers' convolutions. is_scaled: what the stem gives is
    multiplied by the root of its width. projection, width: of the linear behind; empty: there is none. unread: see
    tower.VisionTower. chunk, before: frames are in chunks of so many, and see those of theirs, and of so many chunks
    before it; convolutions see what is before alone, and norms are of rows; 0: all see all. asked: before the linear
    behind, two that are told which language is spoken; None: there are none.
    """

    encoder: EncoderSettings
    num_bands: int
    channels: int
    kernel: int
    has_conv_bias: bool
    is_scaled: bool
    most_frames: int
    projection: str
    width: int
    unread: tuple[str, ...] = ()
    chunk: int = 0
    before: int = 0
    asked: Asked | None = None
    held: dict[str, F32] = field(default_factory=dict)

    @property
    def num_positions(self) -> int:
        """Of the longest sound."""
        return self._halved(self.most_frames)

    def _halved(self, count: int) -> int:
        return halved(count, _HALVINGS, self.chunk > 0)

    @property
    def largest(self) -> tuple[int, int]:
        return self.most_frames, self._tile_width

    @property
    def _tile_width(self) -> int:
        return self.num_bands + (self.asked is not None)

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return tuple(f"{name}.{kind}" for name in _DEPTHWISE for kind in ("weight", "bias"))

    def hold(self, tensors: Mapping[str, F32]) -> None:
        for name in self.host_tensors:
            count = self.channels * (KERNEL**2 if name.endswith("weight") else 1)
            if tensors[name].size != count:
                raise WeightMismatch(f"{name} has shape {tensors[name].shape}; wanted {count:,} numbers")
        self.held |= {name: tensors[name] for name in self.host_tensors}

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """What other tensors are made of."""
        layers, parts = f"{_PREFIX}.layers.*", ("self_attn.linear_pos.*", "self_attn.pos_bias_*", "conv.batch_norm.*")
        more = ("conv.depthwise_conv.*", *(("self_attn.linear_q.bias",) if self.encoder.has_bias else ()))
        return (*(f"{layers}.{part}" for part in (*parts, *more)), *self.unread)

    @property
    def stem(self) -> Stem:
        is_causal, is_asked = self.chunk > 0, self.asked is not None
        sizes = self.num_bands, self.channels, self.most_frames
        return _Stem(self.encoder, *sizes, is_causal, is_asked, self.held)

    def patches(self, height: int, width: int) -> int:
        if width != self._tile_width or not 1 <= height <= self.most_frames:
            raise InvariantError(
                f"{height} frames of {width} bands; this encoder hears up to {self.most_frames} of {self.num_bands}"
            )
        return self._halved(height)

    def inputs(self, tile: F32) -> TowerInputs:
        told = 0 if self.asked is None else int(tile[0, -1])
        rows = tile if self.asked is None else np.ascontiguousarray(tile[:, :-1])
        return TowerInputs((rows, *((self._unseen(len(tile)),) if self.chunk else ())), (len(tile), told))

    def _unseen(self, count: int) -> F32:
        """[count, heads * 2 * positions], in the order of distance_columns: what scores have added, so that frames see
        what their chunks do, and nothing else."""
        reach = self.num_positions
        row = np.arange(count)[:, None]
        key = row - np.arange(-reach, reach)
        away = row // self.chunk - key // self.chunk
        unseen = np.where((away >= 0) & (away <= self.before), np.float32(0), np.float32(_NEVER))
        return np.tile(unseen, (1, self.encoder.num_heads))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        if self.asked is None:
            return hidden
        told = np.zeros((len(hidden), self.asked.count), np.float32)
        told[:, grid[1]] = 1.0
        return np.concatenate([hidden, told], axis=1)

    # -- what is computed ---------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            given = b.given(self.channels * self._halved(self.num_bands), 0)
            unseen = None
            if self.chunk:
                unseen = b.given(c.num_heads * 2 * self.num_positions, 1)
            x = linear(b, c, given, f"{_PREFIX}.pre_encode.out", c.hidden_size, "frames")
            if self.is_scaled:
                x = b.scale(x, c.hidden_size**0.5)
        for number in range(c.num_layers):
            x = self._layer(b, x, number, unseen)
        return pooled_states(b, x)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size + (0 if self.asked is None else self.asked.count), 0)
        if self.asked is not None:
            with b.part("asked"):
                x = b.unary(linear(b, c, x, f"{_ASKED}.linear_1", self.asked.width, "up"), "relu")
                x = linear(b, c, x, f"{_ASKED}.linear_2", c.hidden_size, "down")
        if self.projection:
            x = linear(b, c, x, self.projection, self.width, "up")
        return pooled_states(b, x)

    def _layer(self, b: GraphBuilder, x: Value, number: int, unseen: Value | None) -> Value:
        c, name = self.encoder, f"{_PREFIX}.layers.{number}"
        x = self._ffn(b, x, f"layers.{number}.first", f"{name}.feed_forward1", f"{name}.norm_feed_forward1")
        with b.part(f"layers.{number}.attn"):
            h = rounded_norm(b, c, x, f"{name}.norm_self_att")
            a = self._attention(b, h, f"{name}.self_attn", unseen)
            o = linear(b, c, a, f"{name}.self_attn.linear_out", c.hidden_size, "o", c.has_bias)
            with b.part("o"):
                x = b.add(x, o)
        with b.part(f"layers.{number}.conv"):
            x = b.add(x, self._convolution(b, rounded_norm(b, c, x, f"{name}.norm_conv"), f"{name}.conv"))
        x = self._ffn(b, x, f"layers.{number}.second", f"{name}.feed_forward2", f"{name}.norm_feed_forward2")
        with b.part(f"layers.{number}.out"):
            return norm(b, c, x, f"{name}.norm_out")

    def _ffn(self, b: GraphBuilder, x: Value, part: str, name: str, of_norm: str) -> Value:
        """x, and half of what an FFN gives."""
        c = self.encoder
        with b.part(part):
            h, widths = rounded_norm(b, c, x, of_norm), (c.intermediate_size, c.hidden_size)
            down = mlp(b, c, h, name, widths, c.act, c.has_bias, ("linear1", "linear2"))
            with b.part("down"):
                return b.add(x, b.scale(down, 0.5))

    def _attention(self, b: GraphBuilder, h: Value, name: str, unseen: Value | None) -> Value:
        c, parts = self.encoder, {}
        for part, module in (("u", "linear_q"), ("v", "linear_q"), ("k", "linear_k"), ("w", "linear_v")):
            with b.part(part):
                source = f"{name}.{module}.weight"
                rows = (RowSegment(source, 0, c.hidden_size),)
                called = f"{name}.{part}.weight"
                weight = b.weight(called, (c.hidden_size, c.hidden_size), c.dtype, segments=rows)
                is_query = part in "uv"
                of_bias = f"{name}.{part}_bias" if is_query else f"{name}.{module}.bias"
                has_bias = is_query or c.has_bias
                bias = b.weight(of_bias, (c.hidden_size,), "float32") if has_bias else None
                parts[part] = b.linear(h, weight, bias)
        with b.part("near"):
            table = b.weight(f"{name}.by_distance", (c.num_heads * 2 * self.num_positions, c.head_dim), c.dtype)
            near = b.head_linear(b.cast(parts["v"], c.dtype), table, c.num_heads)
            near = near if unseen is None else b.add(near, unseen)
        return seen(b, c, parts["u"], parts["k"], parts["w"], by_columns=(near,), reach=self.num_positions)

    def _convolution(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c, bias = self.encoder, self.has_conv_bias
        x = gated(b, c, h, name, "pointwise_conv1", c.hidden_size, bias)
        with b.part("mix"):
            weight = b.weight(f"{name}.folded.weight", (c.hidden_size, self._taps), "float32")
            if self.chunk:
                kept = b.weight(f"{name}.depthwise_conv.bias", (c.hidden_size,), "float32") if bias else None
                x = norm(b, c, b.depthwise_conv(x, weight, kept, "none"), f"{name}.batch_norm")
                x = b.unary(x, "silu")
            else:
                x = b.depthwise_conv(x, weight, b.weight(f"{name}.folded.bias", (c.hidden_size,), "float32"))
        return linear(b, c, x, f"{name}.pointwise_conv2", c.hidden_size, "down", bias)

    # -- what is made of the checkpoint's -----------------------------------------------------------------------------

    @property
    def _taps(self) -> int:
        """Of a layer's convolution; of one that sees what is before, as many zeros are behind."""
        return 2 * self.kernel - 1 if self.chunk else self.kernel

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        c, found = self.encoder, dict[str, Made]()
        for number in range(c.num_layers):
            name = f"{_PREFIX}.layers.{number}"
            attention, conv = f"{name}.self_attn", f"{name}.conv"
            for part in "uv":
                sources = [f"{attention}.pos_bias_{part}", *([f"{attention}.linear_q.bias"] if c.has_bias else [])]
                found[f"{attention}.{part}_bias"] = Made((c.hidden_size,), tuple(sources), _summed)
            dims = c.num_heads * 2 * self.num_positions, c.head_dim
            found[f"{attention}.by_distance"] = Made(dims, (f"{attention}.linear_pos.weight",), self._by_distance)
            if self.chunk:
                made = before_alone(c.hidden_size, self.kernel)
                taps = (f"{conv}.depthwise_conv.weight",)
                found[f"{conv}.folded.weight"] = Made((c.hidden_size, self._taps), taps, made)
                continue
            bias = ("depthwise_conv.bias",) if self.has_conv_bias else ()
            found |= folded(conv, (c.hidden_size, self.kernel), "batch_norm", "depthwise_conv.weight", bias)
        return found

    def _by_distance(self, weight: F32) -> F32:
        """[heads * 2 * positions, head_dim]: keys of what is so far from a row, in the order of distance_columns.

        Args: weight: [heads * head_dim, width].
        """
        c, reach = self.encoder, self.num_positions
        # of a position behind a row the distance is negative
        away = np.arange(-reach, reach, dtype=np.float64)
        speeds = _SLOWEST ** (-np.arange(0, c.hidden_size, 2) / c.hidden_size)
        angles = away[:, None] * speeds
        waves = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(away), -1)
        keys = (waves @ weight.astype(np.float64).T).reshape(len(away), c.num_heads, c.head_dim)
        return np.ascontiguousarray(keys.transpose(1, 0, 2).reshape(-1, c.head_dim), np.float32)


def _summed(*vectors: F32) -> F32:
    return np.asarray(sum(each.reshape(-1) for each in vectors), np.float32)


def open_fast_conformer(
    fields: Fields,
    dtype: str,
    seconds_frames: int,
    projection: str,
    width: int,
    unread: tuple[str, ...],
    *,
    chunk: int = 0,
    before: int = 0,
    asked: Asked | None = None,
) -> FastConformerTower:
    """What encoder_config says. Args: seconds_frames: frames of the longest sound. Others: see FastConformerTower.

    Raises: ModelError for a bad value; UnsupportedModel for what is not computed.
    """
    has_bias = fields.flag("attention_bias", True)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=_EPS, has_bias=has_bias)
    check_heads(fields, encoder)
    bands, channels = (
        fields.integer("num_mel_bins", 1, MAX_WIDTH, 80),
        fields.integer("subsampling_conv_channels", 1, MAX_WIDTH, 256),
    )
    kernel = fields.integer("conv_kernel_size", 1, 63, 9)
    for key, only in (
        ("subsampling_factor", 2**_HALVINGS),
        ("subsampling_conv_kernel_size", KERNEL),
        ("subsampling_conv_stride", STRIDE),
    ):
        if fields.integer(key, 1, MAX_WIDTH, only) != only:
            fields.unsupported(key, fields.raw(key), f"supported: {only}")
    if kernel % 2 == 0 or (chunk and 2 * kernel - 1 > MAX_DEPTHWISE_WIDTH):
        fields.unsupported("conv_kernel_size", kernel, "supported: odd numbers")
    if bands % 2**_HALVINGS:
        fields.fail("num_mel_bins", bands, f"must be a multiple of {2**_HALVINGS}")
    return FastConformerTower(
        encoder,
        bands,
        channels,
        kernel,
        fields.flag("convolution_bias", True),
        fields.flag("scale_input", True),
        seconds_frames,
        projection,
        width,
        unread,
        chunk,
        before,
        asked,
    )
