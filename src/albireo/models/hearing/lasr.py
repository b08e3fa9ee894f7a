"""LASR's encoder as a tower: a conformer whose layers rotate queries and keys, and add to a part of what they read.

Found by vision/tower.py. A tile is a sound: frames are its rows. Two convolutions in time go on by two frames each; in
the layers, batch norms are folded into the convolution before them. Source: Google Health AI 2025, MedASR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import InvariantError, ModelError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_DEPTHWISE_WIDTH
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.hearing.batch_norms import folded, folded_weight
from albireo.models.hearing.gated import gated
from albireo.models.hearing.settings import IGNORABLE, check_heads
from albireo.models.hearing.stem import SeesNothing, Stem, seen_in_time
from albireo.models.settings.class_sizes import sizes
from albireo.models.speech.lasr_ctc import FEWEST, FRAMES, KERNEL, STRIDE, num_frames
from albireo.models.vision.encoder import EncoderSettings, Names, attended, convolution, linear, mlp, norm, rounded_norm
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings
from albireo.models.vision.tower_inputs import HoldsNothing, RowAPatch, TowerInputs

_PREFIX, _SUBSAMPLER = "encoder", "encoder.subsampler"
_DEFAULTS = sizes(512, 2048, 17, 8, hidden_act="silu", patch_size=1)
#: Of attention alone.
_NAMES = Names("", ffn_norm="", up="", down="")
_OF_TRAINING = keys("dropout_positions max_position_embeddings batch_norm_momentum")


@dataclass(frozen=True, slots=True)
class _Stem(SeesNothing):
    """Implements stem.Stem. A tile is a piece."""

    encoder: EncoderSettings
    num_bands: int
    channels: int

    def graphs(self) -> tuple[Graph, ...]:
        c, width = self.encoder, self.encoder.hidden_size
        return (
            convolution(c, self.num_bands, f"{_SUBSAMPLER}.dense_0", width, "relu"),
            convolution(c, KERNEL * width, f"{_SUBSAMPLER}.conv_0", width, "relu"),
            convolution(c, KERNEL * width, f"{_SUBSAMPLER}.conv_1", self.channels, "relu"),
        )

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return FRAMES, num_frames(FRAMES, 1), num_frames(FRAMES)

    def pieces(self, tile: F32) -> Iterator[F32]:
        yield tile

    def behind(self, number: int, hidden: F32) -> F32:
        return hidden if number == 2 else seen_in_time(hidden, KERNEL, STRIDE)


@dataclass(slots=True)
class LasrTower(RowAPatch, HoldsNothing):
    """Implements tower.VisionTower.

    Fields: kernel: of the layers' convolutions. of_ffn, of_conv: what a layer multiplies what it reads by, and what it
    adds. theta: base of frequencies.
    """

    encoder: EncoderSettings
    num_bands: int
    channels: int
    kernel: int
    of_ffn: tuple[float, float]
    of_conv: tuple[float, float]
    theta: float

    unread_tensors = (f"{_PREFIX}.layers.*.conv.norm.*", f"{_PREFIX}.layers.*.conv.depthwise_conv.*")

    @property
    def num_positions(self) -> int:
        """Of the longest sound."""
        return num_frames(FRAMES)

    @property
    def largest(self) -> tuple[int, int]:
        return FRAMES, self.num_bands

    @property
    def stem(self) -> Stem:
        return _Stem(self.encoder, self.num_bands, self.channels)

    def patches(self, height: int, width: int) -> int:
        if width != self.num_bands or not FEWEST <= height <= FRAMES:
            raise InvariantError(
                f"{height} frames of {width} bands; this encoder hears {FEWEST} to {FRAMES} of {self.num_bands}"
            )
        return num_frames(height)

    def inputs(self, tile: F32) -> TowerInputs:
        angles = np.arange(len(tile), dtype=np.float32)[:, None] * base_frequencies(self.theta, self.encoder.head_dim)
        turns = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        return TowerInputs((tile,), (len(tile), 1), turns.astype(np.float32))

    # -- what is computed ---------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = linear(b, c, b.given(self.channels, 0), f"{_SUBSAMPLER}.dense_1", c.hidden_size, "frames")
        for number in range(c.num_layers):
            x = self._layer(b, x, number)
        return pooled_states(b, x)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        return pooled_states(b, norm(b, c, b.given(c.hidden_size, 0), f"{_PREFIX}.out_norm"))

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"{_PREFIX}.layers.{number}"
        x = self._ffn(b, x, f"layers.{number}.first", f"{name}.feed_forward1", f"{name}.norm_feed_forward1")
        with b.part(f"layers.{number}.attn"):
            a = attended(b, c, rounded_norm(b, c, x, f"{name}.norm_self_att"), name, _NAMES, 0)
            o = linear(b, c, a, f"{name}.{_NAMES.out}", c.hidden_size, "o", False)
            with b.part("o"):
                x = b.add(x, o)
        with b.part(f"layers.{number}.conv"):
            added = self._convolution(b, rounded_norm(b, c, x, f"{name}.norm_conv"), f"{name}.conv")
            x = _weighed(b, x, added, self.of_conv)
        x = self._ffn(b, x, f"layers.{number}.second", f"{name}.feed_forward2", f"{name}.norm_feed_forward2")
        with b.part(f"layers.{number}.out"):
            return norm(b, c, x, f"{name}.norm_out")

    def _ffn(self, b: GraphBuilder, x: Value, part: str, name: str, of_norm: str) -> Value:
        c = self.encoder
        with b.part(part):
            h, widths = rounded_norm(b, c, x, of_norm), (c.intermediate_size, c.hidden_size)
            down = mlp(b, c, h, name, widths, c.act, False, ("linear1", "linear2"))
            with b.part("down"):
                return _weighed(b, x, down, self.of_ffn)

    def _convolution(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c = self.encoder
        x = gated(b, c, h, name, "pointwise_conv1", c.hidden_size, False)
        with b.part("mix"):
            weight = b.weight(f"{name}.folded.weight", (c.hidden_size, self._taps), "float32")
            x = b.depthwise_conv(x, weight, b.weight(f"{name}.folded.bias", (c.hidden_size,), "float32"))
        return linear(b, c, x, f"{name}.pointwise_conv2", c.hidden_size, "down", False)

    # -- what is made of the checkpoint's -----------------------------------------------------------------------------

    @property
    def _taps(self) -> int:
        """Of a convolution of an even width, which sees one row more behind than before: a zero before."""
        return self.kernel + (self.kernel + 1) % 2

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        found = dict[str, Made]()
        for number in range(self.encoder.num_layers):
            conv = f"{_PREFIX}.layers.{number}.conv"
            dims = self.encoder.hidden_size, self._taps
            found |= folded(conv, dims, "norm", "depthwise_conv.weight", fold=self._folded)
        return found

    def _folded(self, weight: F32, variance: F32, conv: F32) -> F32:
        return np.pad(folded_weight(weight, variance, conv), ((0, 0), (self._taps - self.kernel, 0)))


def _weighed(b: GraphBuilder, x: Value, added: Value, weights: tuple[float, float]) -> Value:
    kept, share = weights
    return b.add(x if kept == 1.0 else b.scale(x, kept), added if share == 1.0 else b.scale(added, share))


def open_lasr(data: Mapping[str, Any], dtype: str, where: str) -> LasrTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    table = Fields(data, where).table("encoder_config")
    if table is None:
        raise ModelError(f"{where}: encoder_config is missing")
    fields = Fields(table, f"{where}: encoder_config")
    fields.one_of("model_type", ("lasr_encoder",), "lasr_encoder")
    eps = fields.number("layer_norm_eps", 1e-30, 1.0, 1e-6)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=eps, is_bare=True)
    check_heads(fields, encoder)
    for key in ("attention_bias", "convolution_bias"):
        if fields.flag(key, False):
            fields.unsupported(key, True, "supported: false")
    for key, only in (("subsampling_conv_kernel_size", KERNEL), ("subsampling_conv_stride", STRIDE)):
        if fields.integer(key, 1, MAX_WIDTH, only) != only:
            fields.unsupported(key, fields.raw(key), f"supported: {only}")
    rope = Fields(fields.table("rope_parameters") or {}, f"{where}: rope_parameters")
    rope.one_of("rope_type", ("default",), "default")
    tower = LasrTower(
        encoder,
        fields.integer("num_mel_bins", 1, MAX_WIDTH, 128),
        fields.integer("subsampling_conv_channels", 1, MAX_WIDTH, 256),
        fields.integer("conv_kernel_size", 1, MAX_DEPTHWISE_WIDTH - 1, 32),
        _pair(fields, "feed_forward_residual_weights", (1.5, 0.5)),
        _pair(fields, "conv_residual_weights", (2.0, 1.0)),
        rope.number("rope_theta", 1.0, 1e12, 10000.0),
    )
    fields.refuse_unread(IGNORABLE | _OF_TRAINING, {})
    return tower


def _pair(fields: Fields, key: str, default: tuple[float, float]) -> tuple[float, float]:
    if fields.raw(key) is None:
        return default
    given = fields.numbers(key, -1e3, 1e3)
    if len(given) != 2:
        fields.fail(key, list(given), "must be two numbers")
    return given[0], given[1]
