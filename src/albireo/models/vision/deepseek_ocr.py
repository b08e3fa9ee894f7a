"""DeepSeek-OCR: SAM's encoder, two convolutions behind it that make one row of 4 x 4 of its patches, CLIP of those
rows, and a linear of what both give.

Found by tower.py. A tile is the whole of a picture in one square, or a grid of smaller ones that are its parts, each of
which is seen by itself. Rows go line by line across parts; behind each line stands a vector of the checkpoint, and
another behind the whole. Parts are five eighths as long as the whole, so tables of positions and distances are
resampled for them, and SAM's encoder has a program for either size. Source: DeepSeek-AI 2025, DeepSeek-OCR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import isqrt
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.stem import Stem
from albireo.models.vision.encoder import EncoderSettings, Names, layer, linear, norm
from albireo.models.vision.got_ocr2 import open_sam
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid, Sequences
from albireo.models.vision.positions import checked_table, resampled, smooth_cubic_weights
from albireo.models.vision.sam import KERNEL, SamStem, convolved
from albireo.models.vision.settings import IGNORABLE, MAX_IMAGE_SIZE, MAX_WIDTH, encoder_settings, text_width
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_SAM, _CLIP, PROJECTOR = "sam_model", "vision_model", "projector.layers"
_NEWLINE, SEPARATOR = "image_newline", "view_seperator"
_CLASS, _TABLE = f"{_CLIP}.embeddings.class_embedding", f"{_CLIP}.embeddings.position_embedding.weight"
_NAMES = Names(
    *("layer_norm1", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "layer_norm2"),
    joined="self_attn.qkv_proj",
)
#: Patches on a side of what becomes one row, by two convolutions that go on by two each.
STEP, _STRIDE = 4, 2
#: Of a part's side, of how many eighths of that of the whole.
PART = 5, 8
_ACT, _EPS = "quick_gelu", 1e-5


@dataclass(slots=True)
class SquaresStem:
    """Implements stem.Stem and ChoosesGraphs: SAM of either size, its neck, and both convolutions. Fields: whole, part:
    SAM of the whole in one, and of one of its parts. channels: of what each convolution gives."""

    whole: SamStem
    part: SamStem
    channels: tuple[int, int]

    def graphs(self) -> tuple[Graph, ...]:
        (whole, neck), (part, _) = self.whole.graphs(), self.part.graphs()
        first, second = self.channels
        return (
            whole,
            part,
            neck,
            self._convolution("net_2", self.whole.channels, first),
            self._convolution("net_3", first, second),
        )

    def order(self, rows: int) -> tuple[int, ...]:
        return int(rows != self.whole.filled**2), 2, 3, 4

    def most_rows(self, patches: int) -> tuple[int, ...]:
        side = self.whole.side
        return self.whole.filled**2, self.part.filled**2, side**2, (side // 2) ** 2, (side // 4) ** 2

    def pieces(self, tile: F32) -> Iterator[F32]:
        sam, size = self.sam(*tile.shape[:2]), self.sam(*tile.shape[:2]).side * self.whole.encoder.patch_size
        for top in range(0, tile.shape[0], size):
            for left in range(0, tile.shape[1], size):
                yield from sam.pieces(tile[top : top + size, left : left + size])

    def sequences(self, number: int, rows: int) -> Sequences:
        return () if number > 1 else (self.whole, self.part)[number].sequences(0, rows)

    def given(self, number: int, rows: F32) -> tuple[tuple[F32, ...], F32 | None]:
        return ((rows,), None) if number > 1 else (self.whole, self.part)[number].given(0, rows)

    def behind(self, number: int, hidden: F32) -> F32:
        if number < 2:
            return (self.whole, self.part)[number].behind(0, hidden)
        if number == 4:
            return hidden
        side = isqrt(len(hidden))
        return convolved(hidden.reshape(side, side, -1), _STRIDE)

    def sam(self, height: int, width: int) -> SamStem:
        """That of a tile's squares. Raises: InvariantError for a size that squares do not fill."""
        patch = self.whole.encoder.patch_size
        size, of_part = (each.side * patch for each in (self.whole, self.part))
        if (height, width) == (size, size):
            return self.whole
        if not height or not width or height % of_part or width % of_part:
            raise InvariantError(
                f"a tile of {height} x {width} pixels; this tower reads {size} x {size}, and squares of {of_part}"
            )
        return self.part

    def _convolution(self, name: str, channels: int, width: int) -> Graph:
        b = GraphBuilder()
        x = b.given(channels * KERNEL**2, 0)
        return pooled_states(b, linear(b, self.whole.encoder, x, f"{_SAM}.{name}", width, "convolution", False))


@dataclass(slots=True)
class DeepseekOcrTower(GivesRowsOnce):
    """Implements tower.VisionTower; its patches are rows that the stem gives, and a class before those of each square.

    Fields: encoder: CLIP's. before: the stem. side: of CLIP's table. width: of a row. positions: of the whole's and of
    a part's patches, the class's and its embedding first, once held; newline, separator: [1, width], too.
    """

    encoder: EncoderSettings
    before: SquaresStem
    side: int
    width: int
    positions: tuple[F32, F32] | None = field(default=None, kw_only=True)
    newline: F32 | None = field(default=None, kw_only=True)
    separator: F32 | None = field(default=None, kw_only=True)
    merge: int = field(default=1, init=False)

    @property
    def stem(self) -> Stem:
        return self.before

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        return {**self.before.whole.made_tensors, **self.before.part.made_tensors}

    @property
    def host_tensors(self) -> tuple[str, ...]:
        of_sam = (self.before.whole.table,) if self.before.whole.has_positions else ()
        return *of_sam, _CLASS, _TABLE, _NEWLINE, SEPARATOR

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        return *self.before.whole.unread_tensors, f"{_CLIP}.embeddings.patch_embedding.*"

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.before.whole.hold(tensors)
        self.before.part.hold(tensors)
        table = checked_table(tensors, _TABLE, 1 + self.side**2, self.encoder.hidden_size)
        rows = {name: tensors[name].reshape(1, -1) for name in (_CLASS, _NEWLINE, SEPARATOR)}
        first = table[:1] + checked_table(rows, _CLASS, 1, self.encoder.hidden_size)
        self.newline, self.separator = (checked_table(rows, name, 1, self.width) for name in (_NEWLINE, SEPARATOR))
        found = []
        for sam in (self.before.whole, self.before.part):
            weights = smooth_cubic_weights(sam.side // STEP, self.side)
            found.append(np.concatenate([first, resampled(table[1:], weights, weights).reshape(-1, table.shape[1])]))
        self.positions = found[0], found[1]

    def _squares(self, height: int, width: int) -> tuple[SamStem, int, int]:
        """Lines and columns of them."""
        sam = self.before.sam(height, width)
        size = sam.side * sam.encoder.patch_size
        return sam, height // size, width // size

    def patches(self, height: int, width: int) -> int:
        sam, lines, columns = self._squares(height, width)
        return lines * columns * (1 + (sam.side // STEP) ** 2)

    def projected(self, height: int, width: int) -> int:
        sam, lines, columns = self._squares(height, width)
        return lines * columns * (sam.side // STEP) ** 2

    def rows(self, height: int, width: int) -> int:
        sam, lines, columns = self._squares(height, width)
        side = sam.side // STEP
        return lines * side * (columns * side + 1) + (sam is self.before.whole)

    def most_rows(self, patches: int) -> int:
        return max(1, patches)

    def sequences(self, height: int, width: int) -> Sequences:
        sam, lines, columns = self._squares(height, width)
        return ((1 + (sam.side // STEP) ** 2,) * (lines * columns),)

    def most_sequences(self, patches: int) -> int:
        return max(1, patches // (1 + (self.before.part.side // STEP) ** 2))

    def inputs(self, tile: F32) -> TowerInputs:
        """Of what the stem gives of all squares. The class comes as a row of zeros, its embedding among positions."""
        if self.positions is None:
            raise InvariantError(f"{_TABLE} is read before it is held")
        of_whole = (self.before.whole.side // STEP) ** 2
        positions = self.positions[len(tile) != of_whole]
        squares = tile.reshape(-1, len(positions) - 1, tile.shape[1])
        rows = np.pad(squares, ((0, 0), (1, 0), (0, 0))).reshape(-1, tile.shape[1])
        return TowerInputs((rows, np.tile(positions, (len(squares), 1))), (len(squares), len(positions)))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            seen = b.given(c.hidden_size, 0)
            x = norm(b, c, b.add(seen, b.given(c.hidden_size, 1)), f"{_CLIP}.pre_layrnorm")
        for number in range(c.num_layers):
            x = layer(b, c, x, number, f"{_CLIP}.transformer.layers", _NAMES)
        with b.part("head"):
            return pooled_states(b, b.join_heads(x, seen, 1))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """Without classes."""
        kept = hidden.reshape(*grid, -1)[:, 1:]
        return np.ascontiguousarray(kept.reshape(-1, hidden.shape[1]))

    def projector(self) -> Graph:
        b = GraphBuilder()
        x = b.given(2 * self.encoder.hidden_size, 0)
        return pooled_states(b, linear(b, self.encoder, x, PROJECTOR, self.width, "projector"))

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        if self.newline is None or self.separator is None:
            raise InvariantError(f"{_NEWLINE} is read before it is held")
        sam, lines, columns = self._squares(*size)
        side = sam.side // STEP
        across = rows.reshape(lines, columns, side, side, -1).transpose(0, 2, 1, 3, 4)
        across = across.reshape(lines * side, columns * side, self.width)
        behind = np.broadcast_to(self.newline, (len(across), 1, self.width))
        found = np.concatenate([across, behind], axis=1).reshape(-1, self.width)
        return np.concatenate([found, self.separator]) if sam is self.before.whole else found


def open_squares(of_sam: Fields, dtype: str, share: tuple[int, int]) -> tuple[SamStem, SamStem, tuple[int, int]]:
    """SAM of the whole and of a part, and how many channels the convolutions give that files say. Args: share: of a
    part's side, of that of the whole.

    Raises: ModelError for a bad value; UnsupportedModel for what is not computed.
    """
    whole = open_sam(of_sam, dtype, _SAM, share[1])
    part = replace(whole, side=whole.side * share[0] // share[1], table_side=whole.side)
    if part.side % STEP or part.filled == whole.filled:
        of_sam.unsupported("image_size", of_sam.raw("image_size"), f"its parts must be blocks of {STEP} patches")
    given = of_sam.raw("downsample_channels")
    given = [512, 1024] if given is None else given
    if not isinstance(given, list) or len(given) != 2 or not all(type(n) is int and 0 < n <= MAX_WIDTH for n in given):
        of_sam.fail("downsample_channels", given, "must be two numbers of channels")
    return whole, part, (given[0], given[1])


def open_deepseek_ocr(data: Mapping[str, Any], dtype: str, where: str) -> DeepseekOcrTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    vision = Fields(Fields(data, where).table("vision_config") or {}, f"{where}: vision_config")
    of_clip, of_sam = (
        Fields(vision.table(key) or {}, f"{vision.where}: {key}", names)
        for key, names in (("encoder_config", {}), ("sam_config", {"intermediate_size": "mlp_dim"}))
    )
    whole, part, given = open_squares(of_sam, dtype, PART)
    defaults = {"hidden_size": given[1], "intermediate_size": 4 * given[1], "hidden_act": _ACT}
    defaults |= {"num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14}
    defaults["intermediate_size"] = 4 * of_clip.integer("hidden_size", 1, MAX_WIDTH, given[1])
    encoder = encoder_settings(of_clip, dtype, defaults, eps=_EPS)
    if encoder.hidden_size != given[1]:
        of_clip.fail("hidden_size", encoder.hidden_size, f"must be the {given[1]} channels that SAM's encoder gives")
    size = of_clip.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 224)
    of_clip.refuse_unread(IGNORABLE, {})
    of_sam.refuse_unread(IGNORABLE | keys("attention_dropout"), {"use_rel_pos": (True,)})
    before = SquaresStem(whole, part, given)
    return DeepseekOcrTower(encoder, before, size // encoder.patch_size, text_width(data, where, 1280))
