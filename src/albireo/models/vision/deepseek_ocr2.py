"""DeepSeek-OCR 2: SAM's encoder, two convolutions behind it that make one row of 4 x 4 of its patches, a Qwen 2 in
which as many learned rows ask these, and a linear of what asked.

Found by tower.py. A tile is the whole of a picture in one square, or a grid of smaller ones that are its parts, each of
which is seen by itself. All but the last norm is the tower's stem, with programs for either size of squares. What asks
stands behind the rows of its square, sees these, and what asks before it; these see themselves alone. So a layer has
two attentions, of which each row reads one. Source: DeepSeek-AI 2026, DeepSeek-OCR 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.hearing.stem import Stem
from albireo.models.vision.deepseek_ocr import PROJECTOR, SEPARATOR, STEP, SquaresStem, open_squares
from albireo.models.vision.encoder import EncoderSettings, linear, mlp, norm, rounded_norm, summed
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid, Sequences
from albireo.models.vision.positions import checked_table, held
from albireo.models.vision.sam import SamStem
from albireo.models.vision.settings import IGNORABLE, encoder_settings, text_width
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_ASKS = "qwen2_model"
#: Rows that ask of the whole, and of a part.
_QUERIES = (f"{_ASKS}.query_1024.weight", f"{_ASKS}.query_768.weight")
#: Of a part's side, of that of the whole.
PART = 3, 4
_EPS, _THETA = 1e-6, 1e6


@dataclass(slots=True)
class _Before(SquaresStem):
    """Implements stem.Stem and ChoosesGraphs. Fields: asks: of the Qwen 2. theta: base of its frequencies. queries: of
    whole and part [rows of it, E], once held."""

    asks: EncoderSettings
    theta: float
    queries: tuple[F32, F32] | None = field(default=None, kw_only=True)

    @property
    def counts(self) -> tuple[int, int]:
        """Rows of the whole, and of a part."""
        return (self.whole.side // STEP) ** 2, (self.part.side // STEP) ** 2

    def graphs(self) -> tuple[Graph, ...]:
        return *SquaresStem.graphs(self), *(self._asked(count) for count in self.counts)

    def order(self, rows: int) -> tuple[int, ...]:
        before = SquaresStem.order(self, rows)
        return *before, 5 + before[0]

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return *SquaresStem.most_rows(self, patches), *(2 * count for count in self.counts)

    def given(self, number: int, rows: F32) -> tuple[tuple[F32, ...], F32 | None]:
        if number < 5:
            return SquaresStem.given(self, number, rows)
        count, c = len(rows) // 2, self.asks
        angles = np.arange(len(rows), dtype=np.float32)[:, None] * base_frequencies(self.theta, c.head_dim)
        of_kind = np.zeros((2, len(rows), c.hidden_size), np.float32)
        of_kind[0, :count] = of_kind[1, count:] = 1.0
        return (rows, of_kind[0], of_kind[1]), np.concatenate([np.cos(angles), np.sin(angles)], axis=1)

    def behind(self, number: int, hidden: F32) -> F32:
        if number < 4:
            return SquaresStem.behind(self, number, hidden)
        if number == 4:
            assert self.queries is not None, "rows that ask are held first"
            return np.concatenate([hidden, self.queries[self.counts.index(len(hidden))]])
        return hidden[len(hidden) // 2 :]

    def _asked(self, count: int) -> Graph:
        """Of so many rows and as many that ask."""
        b, c = GraphBuilder(), self.asks
        x, of_rows, of_asking = (b.given(c.hidden_size, place) for place in range(3))
        for number in range(c.num_layers):
            x = self._layer(b, x, (of_rows, of_asking), count, number)
        return pooled_states(b, x)

    def _layer(self, b: GraphBuilder, x: Value, kinds: tuple[Value, Value], count: int, number: int) -> Value:
        c, name, still = self.asks, f"{_ASKS}.layers.{number}", RopeSpec((0.0,) * (self.asks.head_dim // 2))
        of_keys = c.kv_heads * c.head_dim
        with b.part(f"layers.{number}.attn"):
            h = rounded_norm(b, c, x, f"{name}.input_layernorm")
            q, k, v = (
                linear(b, c, h, f"{name}.self_attn.{part}_proj", width, part)
                for part, width in (("q", c.hidden_size), ("k", of_keys), ("v", of_keys))
            )
            with b.part("rope"):
                q, k = b.rope(q, still, c.num_heads, c.head_dim), b.rope(k, still, c.kv_heads, c.head_dim)
            with b.part("kv"):
                b.kv_write(k, v, 0, c.kv_heads, c.head_dim)
            with b.part("attention"):
                # of rows, which see all of them; and of what asks, which sees rows and what asks before it
                seen = summed(b, c, q, num_keys=count), summed(b, c, q)
                a = b.add(*(b.mul(each, kind) for each, kind in zip(seen, kinds, strict=True)))
            x = b.add(x, linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", False))
        with b.part(f"layers.{number}.mlp"):
            h = rounded_norm(b, c, x, f"{name}.post_attention_layernorm")
            widths, parts = (c.intermediate_size, c.hidden_size), ("up_proj", "down_proj")
            return b.add(x, mlp(b, c, h, f"{name}.mlp", widths, c.act, False, parts, "gate_proj"))


@dataclass(slots=True)
class DeepseekOcr2Tower(GivesRowsOnce):
    """Implements tower.VisionTower; its patches are what asked. Fields: before: the stem. width: of a row. separator:
    [1, width], behind the whole, once held."""

    before: _Before
    width: int
    separator: F32 | None = field(default=None, kw_only=True)

    @property
    def dtype(self) -> str:
        return self.before.asks.dtype

    @property
    def stem(self) -> Stem:
        return self.before

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        return {**self.before.whole.made_tensors, **self.before.part.made_tensors}

    @property
    def host_tensors(self) -> tuple[str, ...]:
        of_sam = (self.before.whole.table,) if self.before.whole.has_positions else ()
        return *of_sam, *_QUERIES, SEPARATOR

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        return self.before.whole.unread_tensors

    def hold(self, tensors: Mapping[str, F32]) -> None:
        own = self.before
        own.whole.hold(tensors)
        own.part.hold(tensors)
        whole, part = (
            checked_table(tensors, name, count, own.asks.hidden_size)
            for name, count in zip(_QUERIES, own.counts, strict=True)
        )
        own.queries = whole, part
        self.separator = checked_table({SEPARATOR: tensors[SEPARATOR].reshape(1, -1)}, SEPARATOR, 1, self.width)

    def _squares(self, height: int, width: int) -> tuple[SamStem, int]:
        """And how many of them."""
        sam = self.before.sam(height, width)
        size = sam.side * sam.encoder.patch_size
        return sam, (height // size) * (width // size)

    def patches(self, height: int, width: int) -> int:
        sam, count = self._squares(height, width)
        return count * (sam.side // STEP) ** 2

    def projected(self, height: int, width: int) -> int:
        return self.patches(height, width)

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) + (self.before.sam(height, width) is self.before.whole)

    def most_rows(self, patches: int) -> int:
        return max(1, patches)

    def sequences(self, height: int, width: int) -> Sequences:
        return ()

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.before.asks
        with b.part("head"):
            return pooled_states(b, norm(b, c, b.given(c.hidden_size, 0), f"{_ASKS}.norm"))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.before.asks
        return pooled_states(b, linear(b, c, b.given(c.hidden_size, 0), PROJECTOR, self.width, "projector"))

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        is_whole = self.before.sam(*size) is self.before.whole
        return np.concatenate([rows, held(self.separator, SEPARATOR)]) if is_whole else rows


def open_deepseek_ocr2(data: Mapping[str, Any], dtype: str, where: str) -> DeepseekOcr2Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    vision = Fields(Fields(data, where).table("vision_config") or {}, f"{where}: vision_config")
    asks, of_sam = (
        Fields(vision.table(key) or {}, f"{vision.where}: {key}", names)
        for key, names in (("encoder_config", {}), ("sam_config", {"intermediate_size": "mlp_dim"}))
    )
    whole, part, (first, _) = open_squares(of_sam, dtype, PART)
    defaults = {"patch_size": 1, "hidden_act": "silu"}
    encoder = encoder_settings(asks, dtype, defaults, eps=_EPS, is_rms=True)
    shared = asks.integer("num_key_value_heads", 1, encoder.num_heads, 2)
    if encoder.num_heads % shared:
        asks.fail("num_key_value_heads", shared, f"must divide num_attention_heads={encoder.num_heads}")
    theta = asks.number("rope_theta", 1.0, 1e12, _THETA)
    asks.refuse_unread(IGNORABLE, {})
    of_sam.refuse_unread(IGNORABLE | keys("attention_dropout"), {"use_rel_pos": (True,)})
    # whatever files say of the second convolution, it gives what asks reads
    before = _Before(whole, part, (first, encoder.hidden_size), replace(encoder, num_kv_heads=shared), theta)
    return DeepseekOcr2Tower(before, text_width(data, where, 1280))
