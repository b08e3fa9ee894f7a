"""Qwen3-ASR: each second of a sound by three convolutions in time and frequency; layers that see some seconds at once.

Found by vision/tower.py. A tile is what the layers see at once; all it takes of others is how loud the loudest was.
Source: Qwen team 2026, Qwen3-ASR Technical Report; the encoder is that of Qwen3-Omni.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.positions import sines
from albireo.models.hearing.qwen2_audio import DEFAULTS
from albireo.models.hearing.settings import IGNORABLE, OF_WHISPER, audio_fields, num_bands
from albireo.models.hearing.stem import KERNEL, SeesNothing, check_heard, halved, windows
from albireo.models.hearing.whisper_layers import EPS, NAMES
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, convolution, layers, linear, mlp, norm
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import MAX_WIDTH, activation, encoder_settings, text_width
from albireo.models.vision.tower_inputs import HoldsNothing, RowAPatch, TowerInputs

_PREFIX, _PROJECTOR = "audio_tower", "multi_modal_projector"
_NUM_CONVOLUTIONS = 3
_MAX_FRAMES = 2**16
_DEFAULTS = DEFAULTS | sizes(1024, 4096, 24, 16)


@dataclass(frozen=True, slots=True)
class _Convolutions(SeesNothing):
    """Implements stem.Stem. A piece is a chunk of frames, the last filled up with zeros.

    Fields: chunk: frames of a piece. channels: of what each gives.
    """

    encoder: EncoderSettings
    num_bands: int
    chunk: int
    channels: int

    def graphs(self) -> tuple[Graph, ...]:
        return tuple(
            convolution(self.encoder, KERNEL**2 * given, f"{_PREFIX}.conv2d{number}", self.channels, "gelu")
            for number, given in enumerate((1, *(self.channels,) * (_NUM_CONVOLUTIONS - 1)), 1)
        )

    def most_rows(self, patches: int) -> tuple[int, ...]:
        frames, bands = self.chunk, self.num_bands
        return tuple(halved(frames, times) * halved(bands, times) for times in range(1, _NUM_CONVOLUTIONS + 1))

    def pieces(self, tile: F32) -> Iterator[F32]:
        for first in range(0, len(tile), self.chunk):
            piece = tile[first : first + self.chunk]
            piece = np.pad(piece, ((0, self.chunk - len(piece)), (0, 0)))
            yield _neighbours(piece[:, :, None])

    def behind(self, number: int, hidden: F32) -> F32:
        frames, bands = halved(self.chunk, number + 1), halved(self.num_bands, number + 1)
        places = hidden.reshape(frames, bands, self.channels)
        if number + 1 < _NUM_CONVOLUTIONS:
            return _neighbours(places)
        # a row of each frame: all bands of a channel, as the linear behind reads them
        return np.ascontiguousarray(places.transpose(0, 2, 1).reshape(frames, -1))


def _neighbours(places: F32) -> F32:
    """[frames / 2 * bands / 2, 9 * channels] of [frames, bands, channels], zeros around: of every second place the
    nine around it, by band, then by frame, then by channel."""
    found = windows(np.pad(places, ((1, 1), (1, 1), (0, 0)))).swapaxes(2, 3)
    return found.reshape(len(found) * found.shape[1], -1)


@dataclass(frozen=True, eq=False)
class Qwen3AsrTower(RowAPatch, HoldsNothing):
    """Implements tower.VisionTower.

    Fields: chunk: frames that convolutions see at once, and positions are counted in. num_chunks: of a tile. width: of
    rows. act: of the projector.
    """

    encoder: EncoderSettings
    num_bands: int
    chunk: int
    num_chunks: int
    channels: int
    width: int
    act: str

    @property
    def stem(self) -> _Convolutions:
        return _Convolutions(self.encoder, self.num_bands, self.chunk, self.channels)

    def patches(self, height: int, width: int) -> int:
        check_heard(height, width, self.num_bands, self.chunk * self.num_chunks)
        whole, rest = divmod(height, self.chunk)
        return whole * halved(self.chunk, _NUM_CONVOLUTIONS) + halved(rest, _NUM_CONVOLUTIONS)

    def inputs(self, tile: F32) -> TowerInputs:
        # anew with each chunk
        places = np.resize(self._places, (len(tile), self.encoder.hidden_size))
        return TowerInputs((tile, places), (len(tile), 1))

    @cached_property
    def _places(self) -> F32:
        return sines(halved(self.chunk, _NUM_CONVOLUTIONS), self.encoder.hidden_size)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            given = b.given(self.channels * halved(self.num_bands, _NUM_CONVOLUTIONS), 0)
            x = linear(b, c, given, f"{_PREFIX}.conv_out", c.hidden_size, "chunks", has_bias=False)
            with b.part("positions"):
                x = b.add(x, b.given(c.hidden_size, 1))
        x = layers(b, c, x, f"{_PREFIX}.layers", NAMES)
        return pooled_states(b, norm(b, c, x, f"{_PREFIX}.ln_post"))

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        return pooled_states(b, mlp(b, c, b.given(c.hidden_size, 0), _PROJECTOR, (c.hidden_size, self.width), self.act))


def open_qwen3_asr(data: Mapping[str, Any], dtype: str, where: str) -> Qwen3AsrTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    return _opened(data, dtype, where, ("qwen3_asr_encoder", "qwen3_asr_audio_encoder"), _DEFAULTS)


def open_qwen3_omni(data: Mapping[str, Any], dtype: str, where: str) -> Qwen3AsrTower:
    """Of Qwen3-Omni. Raises: as open_qwen3_asr()."""
    return _opened(data, dtype, where, ("qwen3_omni_moe_audio_encoder",), DEFAULTS)


def _opened(
    data: Mapping[str, Any], dtype: str, where: str, kinds: tuple[str, ...], defaults: Mapping[str, Any]
) -> Qwen3AsrTower:
    fields = audio_fields(data, where, kinds, OF_WHISPER)
    encoder = encoder_settings(fields, dtype, defaults, eps=EPS)
    half = fields.integer("n_window", 4, _MAX_FRAMES, 50)
    seen = fields.integer("n_window_infer", 2 * half, _MAX_FRAMES, 800)
    channels = fields.integer("downsample_hidden_size", 1, MAX_WIDTH, 480)
    bands = num_bands(fields)
    width = text_width(data, where, 2048)
    said = fields.integer("output_dim", 1, MAX_WIDTH, width)
    if seen % (2 * half):
        fields.fail("n_window_infer", seen, f"must be a multiple of twice n_window={half}")
    if said != width:
        fields.fail("output_dim", said, f"must be hidden_size={width} of the text part")
    # positions begin anew with each chunk, so that of these no more than one has are read
    ignorable = keys("num_hidden_layers conv_chunksize max_source_positions max_position_embeddings")
    fields.refuse_unread(IGNORABLE | ignorable, {})
    act = activation(fields, "hidden_act", "gelu")
    return Qwen3AsrTower(encoder, bands, 2 * half, seen // (2 * half), channels, width, act)
