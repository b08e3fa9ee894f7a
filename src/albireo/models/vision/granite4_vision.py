"""Granite 4 Vision: CLIP or SigLIP of square blocks of a picture, several of whose states become rows that are added
to as many layers of the language model, each by a Q-Former of its own over windows of patches.

Found by tower.py. A tile is a mosaic, as of LLaVA-NeXT. A Q-Former's queries are learned, and beside it are what a
window has: means of 2 x 2 patches, or one of the four. Its rows are a window's patches, then its queries: in one layer
of the KV cache queries see each other, in another the patches in front of them. Nothing else stands in place of
embeddings. Sources: IBM 2026, Granite 4.0 Vision; Li et al. 2023, BLIP-2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.graph.op_numbers import MAX_GIVEN
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.text_part import sizes_of_class, text_keys
from albireo.models.vision.encoder import EncoderSettings, linear, norm
from albireo.models.vision.llava import side_by_side
from albireo.models.vision.llava_next import LlavaNextTower, next_tower
from albireo.models.vision.mosaic import Mosaic
from albireo.models.vision.patches import F32, Grid, Sequences
from albireo.models.vision.q_former import q_former_layer
from albireo.models.vision.settings import IGNORABLE, encoder_settings

_OF_PROJECTOR = {
    "num_hidden_layers": 1,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "patch_size": 1,
}
#: Channels of a Q-Former's heads, whatever is said.
_HEAD_DIM = 64
#: Of norms before Q-Formers.
_EPS = 1e-6
_NUM_OFFSETS = 4
#: Of training, and of texts, which these Q-Formers do not read.
_OF_OTHERS = keys(
    "model_type max_position_embeddings encoder_hidden_size",
    "vocab_size num_attention_heads hidden_size",
)


@dataclass(frozen=True, slots=True)
class RowSet:
    """Rows that are added to one layer. Fields: name: of the module that makes them. at: behind how many layers of the
    tower. place: which of 2 x 2 patches queries begin with, in reading order; None: their mean. layer: of the language
    model, in front of which they are added."""

    name: str
    at: int
    place: int | None
    layer: int


@dataclass(slots=True)
class Granite4VisionTower(LlavaNextTower):
    """Implements tower.VisionTower. Fields: sets: in the order of layers. former: sizes of Q-Formers. period: of their
    layers, those that see patches. window, asks: patches, and queries, on the side of a window. held: of each set,
    where patches are in a window, and queries."""

    sets: tuple[RowSet, ...]
    former: EncoderSettings
    period: int
    window: int
    asks: int
    held: dict[str, F32] = field(default_factory=dict, kw_only=True)

    @property
    def row_side(self) -> int:
        return self.side // self.window * self.asks

    @property
    def deep_layers(self) -> tuple[int, ...]:
        """What is added in front of the first layer stands in place of embeddings."""
        return tuple(each.layer - 1 for each in self.sets if each.layer)

    @property
    def of_window(self) -> int:
        """Rows of the Q-Formers: patches and queries."""
        return self.window**2 + self.asks**2

    @property
    def host_tensors(self) -> tuple[str, ...]:
        own = (f"{each.name}.{part}" for each in self.sets for part in ("image_positions", "query"))
        return *super(Granite4VisionTower, self).host_tensors, *own

    def hold(self, tensors: Mapping[str, F32]) -> None:
        for each in self.sets:
            for part, side in (("image_positions", self.window), ("query", self.asks)):
                name, wanted = f"{each.name}.{part}", (1, side**2, self.encoder.hidden_size)
                if tensors[name].size != np.prod(wanted):
                    what = f"{name} is {list(tensors[name].shape)}, config.json implies {list(wanted)}"
                    raise WeightMismatch(what)
                self.held[name] = tensors[name].reshape(wanted[1:])
        # the table of positions has as many rows as ever
        super(Granite4VisionTower, self).hold(tensors)

    def most_rows(self, patches: int) -> int:
        return max(1, patches // self.window**2) * self.of_window

    def projected(self, height: int, width: int) -> int:
        blocks = Mosaic.of(height, width, self.block).num_blocks
        return blocks * (self.side // self.window) ** 2 * self.of_window

    def projector_sequences(self, count: int) -> Sequences:
        windows = count // self.of_window
        return (self.window**2, self.asks**2) * windows, (self.of_window,) * windows

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        states = self.states(b)
        with b.part("norms"):
            normed = {}
            for number, each in enumerate(self.sets):
                with b.part(f"{number}"):
                    normed[number] = norm(b, replace(c, is_rms=False), states[each.at], f"{each.name}.norm", _EPS)
        return pooled_states(b, side_by_side(b, normed, tuple(normed)))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """[windows * (patches and queries), sets * E] of hidden [T, sets * E]."""
        if not self.held:
            raise InvariantError(f"{self.sets[0].name}.query is read before it is held")
        side, wide = self.side, self.encoder.hidden_size
        blocks = hidden.reshape(-1, self.of_block, len(self.sets), wide)[:, int(self.has_class) :]
        blocks = blocks.reshape(-1, side, side, len(self.sets), wide)
        fours = blocks.reshape(-1, side // 2, 2, side // 2, 2, len(self.sets), wide)
        seen = self._in_windows(blocks, self.window)
        found = np.empty((len(seen), self.of_window, len(self.sets), wide), np.float32)
        for number, each in enumerate(self.sets):
            own = fours[..., number, :]
            begun = own.mean(axis=(2, 4)) if each.place is None else own[:, :, each.place // 2, :, each.place % 2]
            asked = self._in_windows(begun, self.asks)
            found[:, : self.window**2, number] = seen[:, :, number] + self.held[f"{each.name}.image_positions"]
            found[:, self.window**2 :, number] = asked + self.held[f"{each.name}.query"]
        return found.reshape(len(seen) * self.of_window, -1)

    def _in_windows(self, blocks: F32, size: int) -> F32:
        """[windows, size * size, ...] of [blocks, side, side, ...]: block by block."""
        count, side, _, *others = blocks.shape
        cut = blocks.reshape(count, side // size, size, side // size, size, *others).swapaxes(2, 3)
        return np.asarray(cut.reshape(-1, size**2, *others))

    def projector(self) -> Graph:
        b, wide = GraphBuilder(), self.encoder.hidden_size
        given = b.given(len(self.sets) * wide, 0)
        parts = (given,) if len(self.sets) == 1 else b.split(given, (wide,) * len(self.sets))
        rows = {}
        for number, (each, part) in enumerate(zip(self.sets, parts, strict=True)):
            with b.part(f"sets.{number}"):
                x = norm(b, self.former, part, f"{each.name}.qformer.layernorm")
                layers = f"{each.name}.qformer.encoder.layer"
                for layer in range(self.former.num_layers):
                    num_keys = 0 if layer % self.period else self.window**2
                    x = q_former_layer(b, self.former, x, part, layers, layer, num_keys)
                rows[number] = linear(b, self.former, x, f"{each.name}.out_linear", self.width, "out")
        return pooled_states(b, side_by_side(b, rows, tuple(rows)))

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        """[rows, (1 + deep layers) * width]."""
        count, row_side, wide = self.side // self.window, self.row_side, rows.shape[1]
        asked = rows.reshape(-1, count, count, self.of_window, wide)[..., self.window**2 :, :]
        blocks = asked.reshape(-1, count, count, self.asks, self.asks, wide).swapaxes(2, 3)
        mosaic, blocks = Mosaic.of(*grid, self.block), blocks.reshape(-1, row_side, row_side, wide)
        high, wide_kept = mosaic.grid(row_side)
        lines = self.kept(blocks[1:], mosaic, row_side).reshape(high, wide_kept, len(self.sets), self.width)
        behind = self.with_newlines(lines)
        found = np.concatenate([blocks[0].reshape(row_side**2, -1), behind.reshape(len(behind), -1)])
        # of what stands in place of embeddings nothing is said but by what is added in front of the first layer
        return found if not self.sets[0].layer else np.pad(found, ((0, 0), (self.width, 0)))


def open_granite4_vision(data: Mapping[str, Any], dtype: str, where: str) -> Granite4VisionTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    whole, tower = Fields(data, where), next_tower(data, dtype, where)
    for key, only in (("use_spatial_sampling", True), ("spatial_stride", 2), ("use_image_newline_parameter", True)):
        whole.only(key, only)
    asks, window = _rate(whole, tower.side)
    table = whole.table("qformer_config")
    # a table is of BLIP-2's class, whatever it leaves out; no table is of one that is made for it
    defaults, every = (_OF_PROJECTOR, 1) if table is None else ({**_OF_PROJECTOR, "num_hidden_layers": 12}, 2)
    fields = Fields({**(table or {}), **_sizes(tower.encoder)}, f"{where}: qformer_config")
    fields.one_of("model_type", ("blip_2_qformer",), "blip_2_qformer")
    former = encoder_settings(fields, dtype, defaults)
    period = fields.integer("cross_attention_frequency", 1, MAX_LAYERS, every)
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, {"use_qformer_text_input": (False,)})
    text = Fields(text_keys(data, where), f"{where}: text_config")
    of_text = text.integer("num_hidden_layers", 1, MAX_LAYERS, sizes_of_class(data).get("num_hidden_layers", 32))
    sets = _sets(whole, tower.encoder.num_layers, of_text)
    return Granite4VisionTower(
        tower.encoder,
        tower.block,
        tower.has_class,
        tuple(sorted({each.at for each in sets})),
        tower.width,
        tower.act,
        tower.has_bias,
        sets,
        former,
        period,
        window,
        asks,
    )


def _sizes(encoder: EncoderSettings) -> dict[str, int]:
    """Of Q-Formers, whatever their keys say: those of the tower."""
    return {"hidden_size": encoder.hidden_size, "num_attention_heads": max(1, encoder.hidden_size // _HEAD_DIM)}


def _rate(whole: Fields, side: int) -> tuple[int, int]:
    """Queries and patches on the side of a window. Args: side: patches on that of a block."""
    said = whole.text("downsample_rate")
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", said)
    asks, window = (int(each) for each in found.groups()) if found else (0, 0)
    if not asks or window != 2 * asks:
        whole.unsupported("downsample_rate", said, "supported: two numbers of which one is half the other, as 4/8")
    if side % window:
        whole.fail("downsample_rate", said, f"must cut the {side} patches on a side of a block into windows")
    return asks, window


def _sets(whole: Fields, num_layers: int, of_text: int) -> tuple[RowSet, ...]:
    """In the order of layers that they are added to. Args: num_layers: of the tower. of_text: of the text part."""
    pairs = whole.raw("deepstack_layer_map")
    targets = whole.raw("spatial_target_layers")
    targets = [12, 15, 18, 21] if targets is None else targets
    if not isinstance(pairs, list) or not all(_are_numbers(pair, 2) for pair in pairs):
        whole.fail("deepstack_layer_map", pairs, "must be a list of pairs: a layer of the tower, one of the text part")
    if not _are_numbers(targets, _NUM_OFFSETS):
        whole.fail("spatial_target_layers", targets, f"must be numbers of {_NUM_OFFSETS} layers of the text part")
    spatial = whole.raw("spatial_vision_layer")
    spatial = -1 if spatial is None else spatial
    found = [
        *(RowSet(f"layerwise_projectors.{i}", at, None, layer) for i, (at, layer) in enumerate(pairs)),
        *(RowSet(f"spatial_projectors.{i}", spatial, i, layer) for i, layer in enumerate(targets)),
    ]
    layers = sorted(each.layer for each in found)
    if len(set(layers)) < len(layers) or layers[0] < 0 or layers[-1] >= of_text or len(layers) > MAX_GIVEN:
        what = f"with spatial_target_layers={targets}: up to {MAX_GIVEN} different layers of the text part's {of_text}"
        whole.unsupported("deepstack_layer_map", pairs, what)
    for each in found:
        if type(each.at) is not int or not -num_layers <= each.at <= num_layers or not each.at:
            key = "spatial_vision_layer" if each.place is not None else "deepstack_layer_map"
            whole.unsupported(key, each.at, f"supported: one of the tower's {num_layers} layers")
    counted = (replace(each, at=each.at if each.at > 0 else num_layers + 1 + each.at) for each in found)
    return tuple(sorted(counted, key=lambda each: each.layer))


def _are_numbers(given: Any, count: int) -> bool:
    return isinstance(given, list | tuple) and len(given) == count and all(type(each) is int for each in given)
