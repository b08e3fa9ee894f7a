"""Gemma 4: layers of the Universal Speech Model behind two convolutions, a linear, and one more behind a norm.

Found by vision/tower.py. A tile is a sound of up to 30 s: its frames, of which four become a row. Of Gemma 4 12B, which
has no tower, samples are rows: they are normed, and go through one linear. Source: Gemma Team 2026, Gemma 4, as
transformers computes it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_DEPTHWISE_WIDTH
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.settings import IGNORABLE, audio_fields
from albireo.models.hearing.stem import STRIDE
from albireo.models.hearing.usm import Names, UsmLayers
from albireo.models.hearing.usm_stem import HALVINGS, UsmEar, UsmStem
from albireo.models.vision.encoder import EncoderSettings, linear, norm
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings, text_width
from albireo.models.vision.tower_inputs import HoldsNothing, RowAPatch

#: Of 12B, which hears each by itself, rows of a tile.
MOST_ROWS = 750
_OUT, _EMBEDDER = "audio_tower.output_proj", "embed_audio.embedding_projection"
_NAMES = Names(
    "feed_forward1",
    "self_attn",
    "norm_pre_attn",
    "norm_post_attn",
    "self_attn.post",
    "relative_k_proj",
    "lconv1d",
    "feed_forward2",
    "norm_out",
    ".linear",
)
#: Of norms of layers, whatever is said of others.
_EPS = 1e-6
#: What keys are multiplied by.
_OF_KEYS = math.log(1 + math.e) / math.log(2)
_DEFAULTS = {
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "hidden_act": "silu",
    "patch_size": 1,
}


@dataclass(frozen=True, slots=True)
class _Stem(UsmStem):
    """Norms are of the channels of a place. Fields: eps: of norms."""

    eps: float = 0.0

    def normed(self, b: GraphBuilder, x: Value, name: str) -> Value:
        c = replace(self.encoder, is_rms=False, has_norm_bias=False)
        return b.unary(norm(b, c, x, name, self.eps), "relu")


@dataclass(frozen=True, slots=True)
class Gemma4Ear(UsmEar, RowAPatch, HoldsNothing):
    """Implements tower.VisionTower. Fields: given: numbers that the embedder reads. width: of rows."""

    layers: UsmLayers
    num_bands: int
    channels: tuple[int, int]
    given: int
    width: int

    @property
    def stem(self) -> UsmStem:
        return _Stem(self.layers.encoder, self.num_bands, self.channels, ("layer0", "layer1"), 1, eps=self.layers.eps)

    def graph(self) -> Graph:
        b = GraphBuilder()
        return pooled_states(b, linear(b, self.layers.encoder, self.states(b), _OUT, self.given, "out"))

    def projector(self) -> Graph:
        return _embedder(self.layers.encoder, self.given, self.layers.eps, self.width)


@dataclass(frozen=True, slots=True)
class Gemma4UnifiedEar(RowAPatch, HoldsNothing):
    """Implements tower.VisionTower, of samples that are rows; the encoder has no layers. Fields: given: samples of a
    row. width: of what it becomes."""

    encoder: EncoderSettings
    given: int
    width: int

    def patches(self, height: int, width: int) -> int:
        if width != self.given or not 1 <= height <= MOST_ROWS:
            raise InvariantError(
                f"{height} rows of {width} bands; this tower hears up to {MOST_ROWS} of {self.given}: they are samples"
            )
        return height

    def graph(self) -> Graph:
        b = GraphBuilder()
        return pooled_states(b, b.rms_norm(b.given(self.given, 0), None, self.encoder.eps))

    def projector(self) -> Graph:
        b = GraphBuilder()
        return pooled_states(b, linear(b, self.encoder, b.given(self.given, 0), _EMBEDDER, self.width, "down", False))


def _embedder(c: EncoderSettings, given: int, eps: float, width: int) -> Graph:
    b = GraphBuilder()
    with b.part("norm"):
        x = b.rms_norm(b.given(given, 0), None, eps)
    return pooled_states(b, linear(b, c, x, _EMBEDDER, width, "down", False))


def open_gemma4(data: Mapping[str, Any], dtype: str, where: str) -> Gemma4Ear:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = audio_fields(data, where, ("gemma4_audio",))
    width = fields.integer("hidden_size", 4, MAX_WIDTH, 1024)
    sizes = {**_DEFAULTS, "hidden_size": width, "intermediate_size": 4 * width}
    encoder = encoder_settings(fields, dtype, sizes, eps=_EPS, is_rms=True, has_bias=False)
    before = fields.integer("attention_context_left", 3, MAX_WIDTH, 13) - 1
    chunk = fields.integer("attention_chunk_size", 1, MAX_WIDTH, 12)
    if (chunk + before) // 2 != before:
        # the first of the distances that are told apart is that from the middle of what a chunk sees
        fields.unsupported("attention_chunk_size", chunk, f"supported: {before}, or one more")
    invalid = fields.number("attention_invalid_logits_value", -1e30, 1e30, -1e9)
    if invalid > -1e4:
        fields.unsupported("attention_invalid_logits_value", invalid, "supported: what leaves nothing of a position")
    layers = UsmLayers(
        encoder,
        _NAMES,
        "audio_tower.layers",
        window=before,
        cap=fields.number("attention_logit_cap", 1e-3, 1e6, 50.0),
        most=most_of(fields),
        share=fields.number("residual_weight", -1e3, 1e3, 0.5),
        kernel=fields.integer("conv_kernel_size", 1, MAX_DEPTHWISE_WIDTH // 2, 5),
        eps=fields.number("rms_norm_eps", 1e-30, 1.0, 1e-6),
        factor=_OF_KEYS,
        is_clipped=fields.flag("use_clipped_linears", True),
    )
    given = fields.integer("output_proj_dims", 1, MAX_WIDTH, 1536)
    channels = pair(fields, "subsampling_conv_channels", (128, 32))
    # files do not say how many bands there are; what reads them is as wide as if these were as many
    bands = channels[0]
    if bands % STRIDE**HALVINGS:
        fields.fail("subsampling_conv_channels", list(channels), f"the first must be a multiple of {STRIDE**HALVINGS}")
    fields.refuse_unread(IGNORABLE, {"attention_context_right": (0,)})
    return Gemma4Ear(layers, bands, channels, given, text_width(data, where, 2304))


def open_gemma4_unified(data: Mapping[str, Any], dtype: str, where: str) -> Gemma4UnifiedEar:
    """Raises: as open_gemma4()."""
    fields = audio_fields(data, where, ("gemma4_unified_audio",))
    given = fields.integer("audio_embed_dim", 1, MAX_WIDTH, 640)
    eps = fields.number("rms_norm_eps", 1e-30, 1.0, 1e-6)
    for key in ("hidden_size", "output_proj_dims", "audio_samples_per_token"):
        if fields.integer(key, 1, MAX_WIDTH, given) != given:
            fields.unsupported(key, fields.raw(key), f"as audio_embed_dim has it, it is {given}")
    fields.refuse_unread(IGNORABLE, {})
    encoder = EncoderSettings(given, given, 0, 1, 1, "gelu", eps, dtype)
    return Gemma4UnifiedEar(encoder, given, text_width(data, where, 2304))


def most_of(fields: Fields) -> float:
    """What numbers are kept below, either way. Raises: ModelError for a bad value."""
    return fields.number("gradient_clipping", 1.0, 1e38, 1e10)


def pair(fields: Fields, key: str, default: tuple[int, int]) -> tuple[int, int]:
    """Two whole numbers. Raises: ModelError for anything else."""
    given = fields.raw(key)
    if given is None:
        return default
    if not isinstance(given, list) or len(given) != 2 or not all(type(n) is int and 1 <= n <= MAX_WIDTH for n in given):
        fields.fail(key, given, f"must be two numbers from 1 to {MAX_WIDTH}")
    return given[0], given[1]
