"""Gemma 3n: layers of the Universal Speech Model behind two convolutions; of every fourth row a linear between norms.

Found by vision/tower.py. A tile is a sound of up to 30 s: its frames, of which sixteen become a row. A sound has as
many rows as 30 s have: those that are missing are what the last token's embedding becomes, and behind all of them is
that of the token that ends a sound. What convolutions give is normed by the mean and the variance of all that was
before, which the host does. Source: Gemma Team 2025, Gemma 3n, as transformers computes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.graph.op_numbers import MAX_DEPTHWISE_WIDTH
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.gemma4 import most_of, pair
from albireo.models.hearing.settings import IGNORABLE, audio_fields
from albireo.models.hearing.stem import KERNEL, STRIDE, halved
from albireo.models.hearing.usm import Names, UsmLayers
from albireo.models.hearing.usm_stem import HALVINGS, MOST_FRAMES, PREFIX, UsmEar, UsmStem
from albireo.models.settings.text_part import text_keys
from albireo.models.vision.encoder import linear, norm
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings, text_width
from albireo.models.vision.tower_inputs import TowerInputs
from albireo.speculative_config import MAX_VOCAB

_EMBEDDER = "embed_audio"
_TABLE, _GAIN = f"{_EMBEDDER}.embedding.weight", f"{_EMBEDDER}.hard_embedding_norm.weight"
_CONVOLUTIONS = ("conv_0", "conv_1")
_NORMS = tuple(f"{PREFIX}.{name}.norm.weight" for name in _CONVOLUTIONS)
_NAMES = Names(
    "ffw_layer_start",
    "attention.attn",
    "attention.pre_attn_norm",
    "attention.post_norm",
    "attention.post",
    "relative_position_embedding.pos_proj",
    "lconv1d",
    "ffw_layer_end",
    "norm",
)
_KEYS = {"num_hidden_layers": "conf_num_hidden_layers", "num_attention_heads": "conf_num_attention_heads"}
_DEFAULTS = {
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "hidden_act": "silu",
    "patch_size": 1,
}
#: Of norms of layers, whatever is said of others.
_EPS = 1e-6
#: Ids where nothing is said: of all tokens, of the first that stands for sounds, and of the one that ends a sound.
_VOCAB, _FIRST, _END = 262400, 262272, 262272


@dataclass(frozen=True, slots=True)
class _Stem(UsmStem):
    """Norms are of all channels and bands of this frame and of those before. Fields: eps: of norms. held: of
    host_tensors. sums: of each convolution, of frames that are passed: how many there are, sum and sum of squares."""

    eps: float = 0.0
    held: Mapping[str, F32] = field(default_factory=dict)
    sums: dict[int, tuple[int, float, float]] = field(default_factory=dict)

    def pieces(self, tile: F32) -> Iterator[F32]:
        self.sums.clear()
        yield from UsmStem.pieces(self, tile)

    def placed(self, number: int, places: F32) -> F32:
        if not self.held:
            raise InvariantError(f"{_NORMS[number]} is read before it is held")
        x, size = places.astype(np.float64), places[0].size
        passed, total, squares = self.sums.get(number, (0, 0.0, 0.0))
        counts = size * (passed + np.arange(1, len(x) + 1))
        totals = total + np.cumsum(x.sum(axis=(1, 2)))
        apart = x - (totals / counts)[:, None, None]
        all_squares = squares + np.cumsum((apart**2).sum(axis=(1, 2)))
        # the next piece begins with the last of these
        span = self.spans[-1]
        kept = len(x) if number else min(len(x), span.last - span.first - (KERNEL - STRIDE))
        self.sums[number] = passed + kept, float(totals[kept - 1]), float(all_squares[kept - 1])
        normed = apart / np.sqrt(all_squares / counts + self.eps)[:, None, None] * self.held[_NORMS[number]].reshape(-1)
        return np.asarray(np.maximum(normed, 0.0), np.float32)


@dataclass(slots=True)
class Gemma3nEar(UsmEar):
    """Implements tower.VisionTower.

    Fields: eps: of norms around the linear; conv_eps: of those of convolutions. every: of the layers' rows, each
    every-th is one. most: rows of a sound, before the one that ends it. entries: of the table of embeddings; filling,
    ending: rows of it that stand where nothing is heard, and at the end. width: of rows.
    """

    layers: UsmLayers
    num_bands: int
    channels: tuple[int, int]
    eps: float
    conv_eps: float
    every: int
    most: int
    entries: int
    filling: int
    ending: int
    width: int
    held: dict[str, F32] = field(default_factory=dict)

    host_tensors = (*_NORMS, _TABLE, _GAIN)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width = self.layers.encoder.hidden_size
        wanted = dict(zip(self.host_tensors, (*self.channels, self.entries * width, width), strict=True))
        for name, count in wanted.items():
            if tensors[name].size != count:
                raise WeightMismatch(f"{name} has shape {tensors[name].shape}; wanted {count:,} numbers")
        self.held |= {name: tensors[name] for name in wanted}

    @property
    def stem(self) -> UsmStem:
        sizes = self.num_bands, self.channels
        return _Stem(self.layers.encoder, *sizes, _CONVOLUTIONS, 0, eps=self.conv_eps, held=self.held)

    def most_rows(self, patches: int) -> int:
        return -(-patches // self.every) + 2

    def rows(self, height: int, width: int) -> int:
        self.patches(height, width)
        return self.most + 1

    def projected(self, height: int, width: int) -> int:
        return self.most_rows(self.patches(height, width))

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.layers.encoder
        return pooled_states(b, norm(b, c, self.states(b), f"{_EMBEDDER}.soft_embedding_norm", self.eps))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """Every so many rows, then what stands where nothing is heard, and what stands at the end."""
        if not self.held:
            raise InvariantError(f"{_TABLE} is read before it is held")
        table = self.held[_TABLE].reshape(self.entries, -1)
        told = table[[self.filling, self.ending]].astype(np.float64)
        normed = told / np.sqrt((told**2).mean(axis=1, keepdims=True) + self.eps) * self.held[_GAIN].reshape(-1)
        return np.concatenate([hidden[:: self.every], normed.astype(np.float32)])

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.layers.encoder
        given = b.given(c.hidden_size, 0)
        x = linear(b, c, given, f"{_EMBEDDER}.embedding_projection", self.width, "down", False)
        with b.part("norm"):
            return pooled_states(b, b.rms_norm(x, None, self.eps))

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        heard, (filling, ending) = rows[:-2], rows[-2:]
        return np.concatenate([heard, np.tile(filling, (self.most - len(heard), 1)), ending[None]])


def open_gemma3n(data: Mapping[str, Any], dtype: str, where: str) -> Gemma3nEar:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = audio_fields(data, where, ("gemma3n_audio",), _KEYS), Fields(data, where)
    width = fields.integer("hidden_size", 4, MAX_WIDTH, 1536)
    sizes = {**_DEFAULTS, "hidden_size": width, "intermediate_size": 4 * width}
    encoder = encoder_settings(fields, dtype, sizes, eps=_EPS, is_rms=True, has_bias=False)
    eps = fields.number("rms_norm_eps", 1e-30, 1.0, 1e-6)
    layers = UsmLayers(
        encoder,
        _NAMES,
        "audio_tower.conformer",
        window=fields.integer("conf_attention_context_left", 1, MAX_WIDTH, 13),
        cap=fields.number("conf_attention_logit_cap", 1e-3, 1e6, 50.0),
        most=most_of(fields),
        share=fields.number("conf_residual_weight", -1e3, 1e3, 0.5),
        kernel=fields.integer("conf_conv_kernel_size", 1, MAX_DEPTHWISE_WIDTH // 2, 5),
        eps=eps,
        factor=1.0,
        is_clipped=False,
    )
    bands = fields.integer("input_feat_size", 1, MAX_WIDTH, 128)
    every = fields.integer("conf_reduction_factor", 1, MAX_WIDTH, 4)
    for key, only in (("sscp_conv_kernel_size", KERNEL), ("sscp_conv_stride_size", STRIDE)):
        if fields.raw(key) not in (None, [[only, only], [only, only]]):
            fields.unsupported(key, fields.raw(key), f"supported: {only} of both sides of both")
    entries = fields.integer("vocab_size", 1, MAX_VOCAB, 128)
    first = fields.integer("vocab_offset", 0, MAX_VOCAB, _FIRST)
    count = Fields(text_keys(data, where), f"{where}: text_config").integer("vocab_size", 1, MAX_VOCAB, _VOCAB)
    end = whole.integer("eoa_token_id", 0, MAX_VOCAB, _END)
    for key, token in (("vocab_size of text_config", count - 1), ("eoa_token_id", end)):
        if not first <= token < first + entries:
            whole.fail(key, token, f"must be one of {entries} tokens from audio_config.vocab_offset={first} on")
    most = whole.integer("audio_soft_tokens_per_image", 1, MAX_WIDTH, 188)
    if most * every < halved(MOST_FRAMES, HALVINGS):
        whole.fail("audio_soft_tokens_per_image", most, f"must be as many rows as 30 s have, of {every} positions each")
    tower = Gemma3nEar(
        layers,
        bands,
        pair(fields, "sscp_conv_channel_size", (128, 32)),
        eps,
        fields.number("sscp_conv_group_norm_eps", 1e-30, 1.0, 1e-3),
        every,
        most,
        entries,
        count - 1 - first,
        end - first,
        text_width(data, where, 2048),
    )
    # a window is as far as a position sees, however many are computed at once
    fields.refuse_unread(IGNORABLE | {"conf_attention_chunk_size"}, {"conf_attention_context_right": (0,)})
    return tower
