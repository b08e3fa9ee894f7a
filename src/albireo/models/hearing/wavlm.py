"""WavLM's encoder as a tower: wav2vec 2.0's, whose scores have added what is learned of distances, times a gate that
each row has for each head.

Found by vision/tower.py. Near distances are told apart, farther ones by their logarithm; all layers have the first's
numbers of them, and gates of their own. What a row adds is made for every distance before attention reads it. Source:
Chen et al. 2021, WavLM.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.json_file import Fields
from albireo.models.hearing.wav2vec2 import LAYER, Wav2Vec2Tower, open_wav2vec2
from albireo.models.vision.encoder import linear, mlp, rounded_norm, seen
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32

_LAYERS = "encoder.layers"
_TABLE, _DISTANCES = f"{_LAYERS}.0.attention.rel_attn_embed.weight", "encoder.distances"
#: Rows of a gate's linear that are summed, of either of its two parts.
_SUMMED = 4


@dataclass(slots=True)
class WavLMTower(Wav2Vec2Tower):
    """Implements tower.VisionTower. Fields: buckets: that distances are told apart by, half of them of each way.
    farthest: distance, from which on all are one."""

    buckets: int = 320
    farthest: int = 800

    unread_tensors = (*Wav2Vec2Tower.unread_tensors, _TABLE, f"{_LAYERS}.*.attention.gru_rel_pos*")

    @property
    def told(self) -> int:
        """Rows, of which farther ones are as the last, either way."""
        return 1 + int(np.argmax(self._buckets_of(np.arange(self.farthest + 1)) == self.buckets // 2 - 1))

    def _buckets_of(self, distances: NDArray[np.int64]) -> NDArray[np.int64]:
        """Of distances one way; in float32, as they are told apart by."""
        way, near = self.buckets // 2, self.buckets // 4
        far = np.log(np.maximum(distances, 1).astype(np.float32) / np.float32(near))
        far = far / np.float32(np.log(self.farthest / near)) * np.float32(way - near)
        return np.where(distances < near, distances, np.minimum((near + far).astype(np.int64), way - 1))

    # -- what is computed ---------------------------------------------------------------------------------------------

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"{_LAYERS}.{number}"
        with b.part(f"layers.{number}.attn"):
            a = self._attended(b, rounded_norm(b, c, x, f"{name}.{LAYER.attention_norm}"), name)
            x = b.add(x, linear(b, c, a, f"{name}.{LAYER.out}", c.hidden_size, "o"))
        with b.part(f"layers.{number}.mlp"):
            h = rounded_norm(b, c, x, f"{name}.{LAYER.ffn_norm}")
            widths = c.intermediate_size, c.hidden_size
            return b.add(x, mlp(b, c, h, name, widths, c.act, parts=(LAYER.up, LAYER.down)))

    def _attended(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c = self.encoder
        q, k, v = (
            linear(b, c, h, f"{name}.{place}", c.hidden_size, part)
            for place, part in ((LAYER.q, "q"), (LAYER.k, "k"), (LAYER.v, "v"))
        )
        with b.part("by_distance"):
            table = b.weight(_DISTANCES, (c.num_heads * 2 * self.told, 1), c.dtype)
            near = b.head_linear(b.cast(self._gate(b, h, f"{name}.attention"), c.dtype), table, c.num_heads)
        return seen(b, c, q, k, v, by_columns=(near,), reach=self.told)

    def _gate(self, b: GraphBuilder, h: Value, name: str) -> Value:
        """[T, heads]: of two likelihoods first * (second * constant - 1) + 2."""
        c = self.encoder

        def row(of: str) -> Value:
            return b.embed(b.token_ids, b.weight(f"{name}.{of}", (1, c.num_heads), "float32"))

        def likely(part: str) -> Value:
            weight = b.weight(f"{name}.{part}.weight", (c.num_heads, c.head_dim), c.dtype)
            return b.unary(b.add(b.head_linear(h, weight, c.num_heads), row(f"{part}.bias")), "sigmoid")

        first, second = likely("first"), likely("second")
        return b.add(b.mul(first, b.add(b.mul(second, row("constant")), row("lowered"))), row("raised"))

    # -- what is made of the checkpoint's -----------------------------------------------------------------------------

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        c = self.encoder
        found = {_DISTANCES: Made((c.num_heads * 2 * self.told, 1), (_TABLE,), self._by_distance)}
        for number in range(c.num_layers):
            name = f"{_LAYERS}.{number}.attention"
            constant, of_gate = (f"{name}.gru_rel_pos_const",), f"{name}.gru_rel_pos_linear"
            for part, at in (("first", 0), ("second", _SUMMED)):
                dims = c.num_heads, c.head_dim
                found[f"{name}.{part}.weight"] = Made(dims, (f"{of_gate}.weight",), _Summed(at, c.num_heads))
                found[f"{name}.{part}.bias"] = Made((1, c.num_heads), (f"{of_gate}.bias",), _Summed(at, c.num_heads, 1))
            found[f"{name}.constant"] = Made((1, c.num_heads), constant, lambda given: given.reshape(1, -1))
            for part, value in (("lowered", -1.0), ("raised", 2.0)):
                found[f"{name}.{part}"] = Made((1, c.num_heads), constant, _All(value))
        return found

    def _by_distance(self, table: F32) -> F32:
        """[heads * 2 * told, 1], in the order of distance_columns; scores are scaled behind it.

        Args: table: [buckets, heads], of rows before another first.
        """
        c = self.encoder
        if table.shape != (self.buckets, c.num_heads):
            raise WeightMismatch(f"rel_attn_embed.weight has shape {table.shape}; wanted {self.buckets}, {c.num_heads}")
        away = np.arange(-self.told, self.told)
        places = self._buckets_of(np.abs(away)) + np.where(away < 0, self.buckets // 2, 0)
        return np.ascontiguousarray(table[places].T.reshape(-1, 1) * np.float32(c.head_dim**0.5), np.float32)


@dataclass(frozen=True, slots=True)
class _Summed:
    """Of rows of a gate's linear, or its bias: the sum of those of a part, alike for each head. Fields: at: the first
    of them. heads: that it is for. of_bias: one row of all heads is wanted."""

    at: int
    heads: int
    of_bias: int = 0

    def __call__(self, given: F32) -> F32:
        rows = given.reshape(2 * _SUMMED, -1)[self.at : self.at + _SUMMED].sum(axis=0, keepdims=True)
        found = np.tile(rows, (self.heads, 1)).astype(np.float32)
        return found.reshape(1, -1) if self.of_bias else found


@dataclass(frozen=True, slots=True)
class _All:
    """As many times one number as heads have constants."""

    value: float

    def __call__(self, given: F32) -> F32:
        return np.full((1, given.size), self.value, np.float32)


def open_wavlm(data: Mapping[str, Any], dtype: str, where: str) -> WavLMTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = Fields(data, where)
    buckets = fields.integer("num_buckets", 4, 2**12, 320)
    farthest = fields.integer("max_bucket_distance", 2, 2**14, 800)
    if buckets % 4 or farthest <= buckets // 4:
        fields.fail("num_buckets", buckets, f"must be fours, and max_bucket_distance={farthest} more than a quarter")
    others = {key: value for key, value in data.items() if key not in ("num_buckets", "max_bucket_distance")}
    tower = open_wav2vec2(others, dtype, where)
    said = {each.name: getattr(tower, each.name) for each in dataclasses.fields(tower)}
    return WavLMTower(**said, buckets=buckets, farthest=farthest)
