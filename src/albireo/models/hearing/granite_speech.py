"""Granite Speech: a conformer that guesses letters halfway, and a Q-Former of windows of what it gives.

Found by vision/tower.py. A tile is a sound: pairs of frames are its rows. Layers see blocks of the tile, each a
sequence; their convolutions see across. The first half of the layers is the stem: behind it, what letters are likely is
made by the host. The Q-Former's rows are a window's frames, then its queries: in one layer of the KV cache queries see
each other, in another what lies in front of them. Sources: Saon et al. 2025, Granite-speech; Shaw et al. 2018,
Self-Attention with Relative Position Representations; Li et al. 2023, BLIP-2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.errors import InvariantError, ModelError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.batch_norms import folded
from albireo.models.hearing.gated import gated
from albireo.models.hearing.settings import IGNORABLE
from albireo.models.hearing.stem import GivesRowsAlone, Stem
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, linear, mlp, norm, rounded_norm, seen
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid, Sequences
from albireo.models.vision.q_former import q_former_layer
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings, text_width
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

#: Rows of the longest sound: three minutes, of 20 ms each.
MOST_ROWS = 9000
_EPS = 1e-5
_OF_QUERIES = "projector.qformer"
_QUERY, _GAIN, _SHIFT = "projector.query", f"{_OF_QUERIES}.layernorm.weight", f"{_OF_QUERIES}.layernorm.bias"
_KEYS = {
    "hidden_size": "hidden_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_mel_bins": "input_dim",
}
_DEFAULTS = {
    "hidden_size": 1024,
    "num_hidden_layers": 10,
    "num_attention_heads": 8,
    "hidden_act": "silu",
    "patch_size": 1,
}
_OF_PROJECTOR = sizes(768, 3072, 12, 12, hidden_act="gelu", layer_norm_eps=1e-12, patch_size=1)


@dataclass(frozen=True, slots=True)
class _Conformer:
    """The layers. Fields: block: rows that see each other. letters: that are guessed halfway. kernel: of convolutions,
    factor: how much wider they are. exported: behind how many layers rows are given, too."""

    encoder: EncoderSettings
    num_bands: int
    block: int
    farthest: int
    letters: int
    kernel: int
    factor: int
    exported: tuple[int, ...]

    @property
    def half(self) -> int:
        return self.encoder.num_layers // 2

    def lengths(self, count: int) -> tuple[int, ...]:
        """Of the blocks of so many rows."""
        whole, rest = divmod(count, self.block)
        return (*(self.block,) * whole, *((rest,) if rest else ()))

    def layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"encoder.layers.{number}"
        x = self._ffn(b, x, f"layers.{number}.first", f"{name}.ff1")
        with b.part(f"layers.{number}.attn"):
            o = linear(b, c, self._attention(b, x, f"{name}.attn"), f"{name}.attn.to_out", c.hidden_size, "o")
            with b.part("o"):
                x = b.add(x, o)
        with b.part(f"layers.{number}.conv"):
            x = b.add(x, self._convolution(b, x, f"{name}.conv"))
        x = self._ffn(b, x, f"layers.{number}.second", f"{name}.ff2")
        with b.part(f"layers.{number}.out"):
            return norm(b, c, x, f"{name}.post_norm")

    def _ffn(self, b: GraphBuilder, x: Value, part: str, name: str) -> Value:
        """x, and half of what an FFN gives."""
        c = self.encoder
        with b.part(part):
            h, widths = rounded_norm(b, c, x, f"{name}.pre_norm"), (c.intermediate_size, c.hidden_size)
            down = mlp(b, c, h, name, widths, "silu", parts=("up_proj", "down_proj"))
            with b.part("down"):
                return b.add(x, b.scale(down, 0.5))

    def _attention(self, b: GraphBuilder, x: Value, name: str) -> Value:
        c, width = self.encoder, self.encoder.hidden_size
        h = rounded_norm(b, c, x, f"{name}.pre_norm")
        q = linear(b, c, h, f"{name}.to_q", width, "q", False)
        k, v = (
            linear(b, c, h, f"{name}.{part}", width, part, False, (f"{name}.to_kv", at * width))
            for at, part in enumerate("kv")
        )
        with b.part("by_distance"):
            table = b.weight(f"{name}.by_distance", (c.num_heads * 2 * self.block, c.head_dim), c.dtype)
            near = b.head_linear(b.cast(q, c.dtype), table, c.num_heads)
        return seen(b, c, q, k, v, by_columns=(near,), reach=self.block)

    def _convolution(self, b: GraphBuilder, x: Value, name: str) -> Value:
        c, width = self.encoder, self.encoder.hidden_size * self.factor
        h = rounded_norm(b, c, x, f"{name}.norm")
        x = gated(b, c, h, name, "up_conv", width)
        with b.part("mix"):
            weight = b.weight(f"{name}.folded.weight", (width, self.kernel), "float32")
            x = b.depthwise_conv(x, weight, b.weight(f"{name}.folded.bias", (width,), "float32"))
        return linear(b, c, x, f"{name}.down_conv", c.hidden_size, "down")

    def made(self, number: int) -> Iterator[tuple[str, Made]]:
        """Tensors of a layer that are made of others."""
        c, name = self.encoder, f"encoder.layers.{number}"
        attention, conv, width = f"{name}.attn", f"{name}.conv", c.hidden_size * self.factor
        dims = c.num_heads * 2 * self.block, c.head_dim
        yield f"{attention}.by_distance", Made(dims, (f"{attention}.rel_pos_emb.weight",), self._by_distance)
        yield from folded(conv, (width, self.kernel), "batch_norm", "depth_conv.conv.weight").items()

    def _by_distance(self, table: F32) -> F32:
        """[heads * 2 * block, head_dim], alike for each head, in the order of distance_columns.

        Args: table: [2 * farthest + 1, head_dim].
        """
        if table.shape != (2 * self.farthest + 1, self.encoder.head_dim):
            raise WeightMismatch(f"rel_pos_emb.weight has shape {table.shape}; config.json implies {self.farthest}")
        # of a position behind a row the distance is negative
        rows = table[self.farthest - self.block : self.farthest + self.block]
        return np.tile(rows, (self.encoder.num_heads, 1))


@dataclass(frozen=True, slots=True)
class _Stem(GivesRowsAlone):
    """Implements stem.Stem: the first half of the layers. A tile is a piece."""

    conformer: _Conformer

    def graphs(self) -> tuple[Graph, ...]:
        b, f = GraphBuilder(), self.conformer
        with b.part("embed"):
            x = linear(b, f.encoder, b.given(f.num_bands, 0), "encoder.input_linear", f.encoder.hidden_size, "frames")
        rows = [x] if 0 in f.exported else []
        for number in range(f.half):
            x = f.layer(b, x, number)
            rows += [x] if number + 1 in f.exported and number + 1 < f.half else []
        with b.part("letters"):
            letters = linear(b, f.encoder, x, "encoder.out", f.letters, "out")
            found = rows[0] if rows else x
            for each in (*rows[1:], *((x,) if rows else ()), letters):
                found = b.join_heads(found, each, 1)
        return (pooled_states(b, found),)

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return (patches,)

    def pieces(self, tile: F32) -> Iterator[F32]:
        yield tile

    def sequences(self, number: int, rows: int) -> Sequences:
        return (self.conformer.lengths(rows),)

    def behind(self, number: int, hidden: F32) -> F32:
        """Letters become likelihoods."""
        letters = hidden[:, -self.conformer.letters :].astype(np.float64)
        powers = np.exp(letters - letters.max(axis=1, keepdims=True))
        likely = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        return np.concatenate([hidden[:, : -self.conformer.letters], likely], axis=1)


@dataclass(slots=True)
class GraniteSpeechTower(GivesRowsOnce):
    """Implements tower.VisionTower. Fields: window: rows of a window. queries: that it becomes. period: of the
    Q-Former's layers, those that see a window. held: of host_tensors."""

    conformer: _Conformer
    former: EncoderSettings
    window: int
    queries: int
    period: int
    width: int
    held: dict[str, F32] = field(default_factory=dict)

    host_tensors = (_QUERY, _GAIN, _SHIFT)

    @property
    def dtype(self) -> str:
        return self.former.dtype

    def hold(self, tensors: Mapping[str, F32]) -> None:
        for name, count in ((_QUERY, self.queries), (_GAIN, 1), (_SHIFT, 1)):
            if tensors[name].size != count * self.former.hidden_size:
                raise WeightMismatch(
                    f"{name} has shape {tensors[name].shape}; wanted {count} x {self.former.hidden_size} numbers"
                )
        self.held |= {name: tensors[name] for name in self.host_tensors}

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """What other tensors are made of."""
        parts = "attn.rel_pos_emb.*", "conv.batch_norm.*", "conv.depth_conv.*"
        return tuple(f"encoder.layers.*.{part}" for part in parts)

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        return dict(each for number in range(self.conformer.encoder.num_layers) for each in self.conformer.made(number))

    @property
    def stem(self) -> Stem:
        return _Stem(self.conformer)

    def patches(self, height: int, width: int) -> int:
        if width != self.conformer.num_bands or not 1 <= height <= MOST_ROWS:
            raise InvariantError(
                f"{height} pairs of frames of {width} bands; this tower hears up to {MOST_ROWS} of "
                f"{self.conformer.num_bands}"
            )
        return height

    def rows(self, height: int, width: int) -> int:
        return -(-self.patches(height, width) // self.window) * self.queries

    def sequences(self, height: int, width: int) -> Sequences:
        return (self.conformer.lengths(self.patches(height, width)),)

    def most_sequences(self, patches: int) -> int:
        return -(-patches // self.conformer.block)

    # -- of the Q-Former, whose rows are more than those that it gives -------------------------------------------------

    def most_rows(self, patches: int) -> int:
        return -(-patches // self.window) * (self.window + self.queries)

    def projected(self, height: int, width: int) -> int:
        return self.most_rows(self.patches(height, width))

    def projector_sequences(self, count: int) -> Sequences:
        windows = count // (self.window + self.queries)
        return (self.window, self.queries) * windows, (self.window + self.queries,) * windows

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile,), (len(tile), 1))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """[windows * (window + queries), what is heard and then what asks]: zeros where there is the other."""
        if not self.held:
            raise InvariantError(f"{_QUERY} is read before it is held")
        windows, (_, heard), asks = -(-len(hidden) // self.window), hidden.shape, self.former.hidden_size
        found = np.zeros((windows, self.window + self.queries, heard + asks), np.float32)
        filled = np.pad(hidden, ((0, windows * self.window - len(hidden)), (0, 0)))
        found[:, : self.window, :heard] = filled.reshape(windows, self.window, heard)
        query = self.held[_QUERY].reshape(self.queries, asks).astype(np.float64)
        spread = np.sqrt(query.var(axis=1, keepdims=True) + self.former.eps)
        normed = (query - query.mean(axis=1, keepdims=True)) / spread
        found[:, self.window :, heard:] = normed * self.held[_GAIN] + self.held[_SHIFT]
        return found.reshape(-1, heard + asks)

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        """Those of queries."""
        each = rows.reshape(-1, self.window + self.queries, rows.shape[1])[:, self.window :]
        return np.ascontiguousarray(each.reshape(-1, rows.shape[1]))

    def graph(self) -> Graph:
        b, f = GraphBuilder(), self.conformer
        c, before = f.encoder, sum(each < f.half for each in f.exported)
        widths = (*(c.hidden_size,) * (before + 1), f.letters)
        *exported, x, likely = b.split(b.given(sum(widths), 0), widths)
        with b.part("letters"):
            x = b.add(x, linear(b, c, likely, "encoder.out_mid", c.hidden_size, "mid"))
        exported += [x] if f.half in f.exported else []
        for number in range(f.half, c.num_layers):
            x = f.layer(b, x, number)
            exported += [x] if number + 1 in f.exported else []
        with b.part("head"):
            found = exported[0] if exported else x
            for each in (*exported[1:], *((x,) if exported else ())):
                found = b.join_heads(found, each, 1)
        return pooled_states(b, found)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.former
        heard = self.conformer.encoder.hidden_size * (1 + len(self.conformer.exported))
        frames, x = b.split(b.given(heard + c.hidden_size, 0), (heard, c.hidden_size))
        for number in range(c.num_layers):
            num_keys = 0 if number % self.period else self.window
            x = q_former_layer(b, c, x, frames, f"{_OF_QUERIES}.encoder.layer", number, num_keys)
        return pooled_states(b, linear(b, c, x, "projector.linear", self.width, "down"))


def open_granite_speech(data: Mapping[str, Any], dtype: str, where: str) -> GraniteSpeechTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    whole = Fields(data, where)
    if whole.flag("has_lora_adapter", True):
        whole.unsupported(
            "has_lora_adapter", True, "sounds are heard with the adapter beside the model: merge it, and say false"
        )
    conformer = _conformer(_table(whole, "encoder_config", where, _KEYS), dtype)
    fields = _table(whole, "projector_config", where, {})
    former = encoder_settings(fields, dtype, _OF_PROJECTOR)
    window = whole.integer("window_size", 1, MAX_WIDTH, 15)
    queries, rest = divmod(window, whole.integer("downsample_rate", 1, window, 5))
    if rest:
        whole.fail("downsample_rate", whole.raw("downsample_rate"), f"must cut window_size={window} evenly")
    heard = conformer.encoder.hidden_size * (1 + len(conformer.exported))
    if fields.integer("encoder_hidden_size", 1, 2**24, 1408) != heard:
        fields.fail("encoder_hidden_size", fields.raw("encoder_hidden_size"), f"must be {heard}, as the encoder gives")
    period = fields.integer("cross_attention_frequency", 1, MAX_WIDTH, 2)
    ignored = keys("model_type max_position_embeddings")
    fields.refuse_unread(
        IGNORABLE | ignored, {"use_qformer_text_input": (False,), "position_embedding_type": ("absolute",)}
    )
    return GraniteSpeechTower(conformer, former, window, queries, period, text_width(data, where))


def _table(whole: Fields, key: str, where: str, names: Mapping[str, str]) -> Fields:
    table = whole.table(key)
    if table is None:
        raise ModelError(f"{where}: {key} is missing")
    return Fields(table, f"{where}: {key}", names)


def _conformer(fields: Fields, dtype: str) -> _Conformer:
    width = fields.integer("hidden_size", 1, MAX_WIDTH, 1024)
    wider = width * fields.integer("feedforward_mult", 1, 64, 4)
    encoder = encoder_settings(fields, dtype, {**_DEFAULTS, "intermediate_size": wider}, eps=_EPS)
    if fields.integer("dim_head", 1, MAX_WIDTH, encoder.head_dim) != encoder.head_dim:
        fields.unsupported("dim_head", fields.raw("dim_head"), f"supported: {encoder.head_dim}")
    farthest = fields.integer("max_pos_emb", 1, MAX_WIDTH, 512)
    block = fields.integer("context_size", 1, farthest, 200)
    kernel = fields.integer("conv_kernel_size", 1, 63, 15)
    if kernel % 2 == 0:
        fields.unsupported("conv_kernel_size", kernel, "supported: odd numbers")
    if encoder.num_layers < 2:
        fields.unsupported("num_layers", encoder.num_layers, "supported: at least 2")
    given = fields.raw("cat_hidden_layers") or []
    is_list = isinstance(given, list) and all(type(each) is int and 0 <= each < encoder.num_layers for each in given)
    if not is_list:
        fields.fail("cat_hidden_layers", given, f"must be numbers of the {encoder.num_layers} layers")
    bands, letters = fields.integer("num_mel_bins", 1, MAX_WIDTH, 160), fields.integer("output_dim", 1, MAX_WIDTH, 42)
    factor = fields.integer("conv_expansion_factor", 1, 16, 2)
    fields.refuse_unread(IGNORABLE | {"model_type"}, {})
    return _Conformer(encoder, bands, block, farthest, letters, kernel, factor, tuple(sorted(set(given))))
