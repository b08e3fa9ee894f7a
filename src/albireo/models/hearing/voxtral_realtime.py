"""Voxtral Realtime: convolutions and layers that see what is before alone, four positions side by side, two linears.

Found by vision/tower.py. It could hear a sound as it comes: here a tile is all of one. A row is 80 ms, and is added to
the embedding of the token at its place, of the prompt and of what is written. Source: Mistral AI 2026, Voxtral
Realtime.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.config_keys import MAX_HEAD_DIM
from albireo.models.hearing.settings import IGNORABLE, audio_fields, num_bands
from albireo.models.hearing.stem import KERNEL, Stem, seen_in_time
from albireo.models.hearing.whisper_layers import STRIDE, WhisperStem, convolved
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, linear, mlp, norm, rounded_norm
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import MAX_WIDTH, activation, encoder_settings, text_width
from albireo.models.vision.tower_inputs import HoldsNothing, MergesInTime, TowerInputs

#: Frames of the longest sound: three minutes, and the silence around it; see sounds/voxtral_realtime.py.
MOST_FRAMES = 8 * 2500
PREFIX, PROJECTOR, _STEM = "audio_tower", "multi_modal_projector", "audio_tower.embedder"
_KEYS = {"layer_norm_eps": "rms_norm_eps"}
_DEFAULTS = sizes(1280, 5120, 32, 32, hidden_act="silu", layer_norm_eps=1e-5, patch_size=1)


@dataclass(frozen=True, slots=True)
class _Stem(WhisperStem):
    """Its first convolution sees what is before."""

    def pieces(self, tile: F32) -> Iterator[F32]:
        yield seen_in_time(np.pad(tile, ((KERNEL - 1, 0), (0, 0))), KERNEL, 1)


@dataclass(frozen=True, slots=True)
class VoxtralRealtimeTower(MergesInTime, HoldsNothing):
    """Implements tower.VisionTower.

    Fields: head_dim: of its heads, which together may be wider than what they read. window: positions that one sees,
    itself included. theta: base of frequencies. merge: positions of a row, width: of it. act: of the projector.
    """

    encoder: EncoderSettings
    num_bands: int
    head_dim: int
    window: int
    theta: float
    merge: int
    width: int
    act: str

    adds_rows = True

    @property
    def stem(self) -> Stem:
        return _Stem(self.encoder, self.num_bands, MOST_FRAMES, _STEM)

    def patches(self, height: int, width: int) -> int:
        whole = STRIDE * self.merge
        if width != self.num_bands or height % whole or not whole <= height <= MOST_FRAMES:
            raise InvariantError(
                f"{height} frames of {width} bands; this tower hears {whole} to {MOST_FRAMES} of {self.num_bands}, a "
                f"multiple of {whole}"
            )
        return height // STRIDE

    def inputs(self, tile: F32) -> TowerInputs:
        angles = np.arange(len(tile), dtype=np.float32)[:, None] * base_frequencies(self.theta, self.head_dim)
        turns = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
        return TowerInputs((tile,), (len(tile), 1), turns.astype(np.float32))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = convolved(b, c, c.hidden_size, f"{_STEM}.conv2")
        for number in range(c.num_layers):
            x = self._layer(b, x, number)
        return pooled_states(b, norm(b, c, x, f"{PREFIX}.norm"))

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"{PREFIX}.layers.{number}"
        with b.part(f"layers.{number}.attn"):
            a = self._attention(b, rounded_norm(b, c, x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn")
            x = b.add(x, linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o"))
        with b.part(f"layers.{number}.mlp"):
            h = rounded_norm(b, c, x, f"{name}.final_layer_norm")
            gate, up = (
                linear(b, c, h, f"{name}.mlp.{part}_proj", c.intermediate_size, part, False) for part in ("gate", "up")
            )
            with b.part("act"):
                m = b.mul(activated(b, gate, c.act), up)
            return b.add(x, linear(b, c, m, f"{name}.mlp.down_proj", c.hidden_size, "down"))

    def _attention(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c, still = self.encoder, RopeSpec((0.0,) * (self.head_dim // 2))
        width = c.num_heads * self.head_dim
        q, k, v = (linear(b, c, h, f"{name}.{part}_proj", width, part, part != "k") for part in "qkv")
        with b.part("rope"):
            q, k = (b.rope(each, still, c.num_heads, self.head_dim) for each in (q, k))
        with b.part("kv"):
            b.kv_write(k, v, 0, c.num_heads, self.head_dim)
        with b.part("attention"):
            return b.attention(
                b.cast(q, c.dtype),
                layer=0,
                num_heads=c.num_heads,
                num_kv_heads=c.num_heads,
                head_dim=self.head_dim,
                scale=self.head_dim**-0.5,
                window=self.window,
                softcap=None,
            )

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        given = b.given(self.merge * c.hidden_size, 0)
        return pooled_states(b, mlp(b, c, given, PROJECTOR, (self.width, self.width), self.act, False))


def open_voxtral_realtime(data: Mapping[str, Any], dtype: str, where: str) -> VoxtralRealtimeTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = audio_fields(data, where, ("voxtral_realtime_encoder",), _KEYS), Fields(data, where)
    rope = Fields(fields.table("rope_parameters") or {}, f"{fields.where}: rope_parameters")
    rope.one_of("rope_type", ("default",), "default")
    theta = rope.number("rope_theta", 1.0, 1e12, fields.number("rope_theta", 1.0, 1e12, 10000.0))
    rope.refuse_unread((), {"partial_rotary_factor": (1.0,)})
    encoder = encoder_settings(fields, dtype, _DEFAULTS, is_rms=True)
    head_dim = fields.integer("head_dim", 2, MAX_HEAD_DIM, 64)
    if head_dim % 2:
        fields.fail("head_dim", head_dim, "must be even")
    heads = fields.integer("num_key_value_heads", 1, MAX_WIDTH, encoder.num_heads)
    if heads != encoder.num_heads:
        fields.unsupported("num_key_value_heads", heads, f"supported: {encoder.num_heads}")
    if activation(fields, "activation_function", "gelu") != "gelu":
        fields.unsupported("activation_function", fields.raw("activation_function"), "supported: gelu")
    window = fields.integer("sliding_window", 1, MAX_WIDTH, 750)
    merge = whole.integer("downsample_factor", 1, 64, 4)
    if whole.integer("audio_length_per_tok", 1, 1024, STRIDE * merge) != STRIDE * merge:
        whole.unsupported("audio_length_per_tok", whole.raw("audio_length_per_tok"), f"supported: {STRIDE * merge}")
    bands = num_bands(fields)
    # how many positions it was trained with, which its rotations do not ask
    fields.refuse_unread(IGNORABLE | {"max_position_embeddings"}, {})
    act = activation(whole, "projector_hidden_act", "gelu")
    return VoxtralRealtimeTower(encoder, bands, head_dim, window, theta, merge, text_width(data, where, 3072), act)
