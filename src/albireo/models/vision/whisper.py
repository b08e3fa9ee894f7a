"""Whisper's encoder: frames of a spectrogram, two convolutions in time, layers in which all positions see each other.

Found by tower.py. A tile is a sound: frames are its rows, bands their numbers. The first convolution is the tower's
program, and what lies behind its neighbours' the projector's: between the two, rows of three frames are put side by
side. Source: Radford et al. 2022, Robust Speech Recognition via Large-Scale Weak Supervision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.layer_kinds import MAX_LAYERS
from albireo.models.layers import pooled_states
from albireo.models.speech.whisper import MAX_SOUND_POSITIONS
from albireo.models.vision.encoder import EncoderSettings, Names, activated, layer, linear, norm
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.settings import MAX_HEADS, MAX_WIDTH, activation
from albireo.models.vision.tower_inputs import HoldsNothing, TowerInputs

#: Frames that a convolution sees at once, and those that the second one goes on by.
_KERNEL, _STRIDE = 3, 2
_EPS = 1e-5
_NAMES = Names(
    "self_attn_layer_norm",
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.out_proj",
    "final_layer_norm",
    "fc1",
    "fc2",
)


@dataclass(frozen=True, slots=True)
class WhisperTower(HoldsNothing):
    """Implements tower.VisionTower. Fields: num_bands: of a frame. num_positions: that a sound gives."""

    encoder: EncoderSettings
    num_bands: int
    num_positions: int

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    def most_rows(self, patches: int) -> int:
        return patches // _STRIDE

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """What the program reads that listens."""
        return ("model.decoder.*",)

    @property
    def largest(self) -> tuple[int, int]:
        """Frames of a sound, and bands of each: there is no other size."""
        return _STRIDE * self.num_positions, self.num_bands

    def patches(self, height: int, width: int) -> int:
        if (height, width) != self.largest:
            frames, bands = self.largest
            raise InvariantError(f"{height} frames of {width} bands; this encoder hears {frames} of {bands}")
        return height

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) // _STRIDE

    def inputs(self, tile: F32) -> TowerInputs:
        self.patches(*tile.shape)
        return TowerInputs((_side_by_side(tile, 1),), (len(tile), 1))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = linear(b, c, b.given(_KERNEL * self.num_bands, 0), "encoder.conv1", c.hidden_size, "frames")
            with b.part("act"):
                x = activated(b, x, "gelu")
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return _side_by_side(hidden, _STRIDE)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = linear(b, c, b.given(_KERNEL * c.hidden_size, 0), "encoder.conv2", c.hidden_size, "frames")
            with b.part("act"):
                x = activated(b, x, "gelu")
            with b.part("positions"):
                shape = self.num_positions, c.hidden_size
                x = b.add(x, b.embed(b.positions, b.weight("encoder.embed_positions.weight", shape, "float32")))
        for number in range(c.num_layers):
            x = layer(b, c, x, number, "encoder.layers", _NAMES)
        return pooled_states(b, norm(b, c, x, "encoder.layer_norm"))


def _side_by_side(frames: F32, stride: int) -> F32:
    """[n / stride, 3 * width] of frames [n, width], zeros before and behind: of each number the three frames', as a
    convolution's weight is flattened."""
    padded = np.pad(frames, ((1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _KERNEL, axis=0)[::stride]
    return np.ascontiguousarray(windows.reshape(len(windows), -1), np.float32)


def open_whisper(data: Mapping[str, Any], dtype: str, where: str) -> WhisperTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = Fields(data, where)
    width = fields.integer("d_model", 1, MAX_WIDTH, 384)
    heads = fields.integer("encoder_attention_heads", 1, MAX_HEADS, 6)
    if width % heads or (width // heads) % 2:
        fields.fail("encoder_attention_heads", heads, f"must cut d_model={width} into even heads")
    encoder = EncoderSettings(
        width,
        fields.integer("encoder_ffn_dim", 1, 16 * MAX_WIDTH, 1536),
        fields.integer("encoder_layers", 1, MAX_LAYERS, 4),
        heads,
        1,
        activation(fields, "activation_function", "gelu"),
        _EPS,
        dtype,
        has_k_bias=False,
    )
    positions = fields.integer("max_source_positions", 1, MAX_SOUND_POSITIONS, 1500)
    return WhisperTower(encoder, fields.integer("num_mel_bins", 1, MAX_WIDTH, 80), positions)
