"""Phi-4 multimodal: SigLIP of square blocks of a picture, whose patches without any of it are kept from sight; means of
2 x 2 patches, and two linears.

Found by tower.py. A tile is a whole picture (sheet.py), whose blocks do not see each other; one more, the whole of it
made small, is made here of the tile's numbers, as transformers makes it. Rows of the blocks come first, line by line
across them, then those of the whole; a vector of the checkpoint stands behind each line, and another between the two.
Patches that have nothing of the picture are left out, but for those that share a row with one that has: these see, and
are not seen. For that a head has channels more, in which queries say so and keys are told. Source: Microsoft 2025,
Phi-4-Mini Technical Report, as transformers computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.json_file import keys
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, embedded, linear, rounded_norm
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid, Sequences, blocks, patch_rows
from albireo.models.vision.positions import checked_table, cubic_weights, resampled, stretched
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    encoder_settings,
    feature_layer,
    text_width,
    vision_fields,
)
from albireo.models.vision.sheet import Sheet
from albireo.models.vision.siglip import DEFAULTS
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_EMBED, _TOWER = "image_embed", "image_embed.img_processor"
_TABLE = f"{_TOWER}.embeddings.position_embedding.weight"
_BETWEEN, _BEHIND = f"{_EMBED}.global_img_feature_extensor", f"{_EMBED}.sub_img_feature_extensor"
_DEFAULTS = DEFAULTS | sizes(1152, 4304, 27, 16, patch_size=14)
#: Patches on a side of a block: of others its processor counts rows as of these.
SIDE = 32
#: A query says so of what is kept from sight; less than the largest float16, far more than any score.
_HIDES = 32768.0
#: Channels of a head are a multiple of so many, and so are the numbers by which keys are told.
_STEP = 16


@dataclass(slots=True)
class Phi4MultimodalTower(GivesRowsOnce):
    """Implements tower.VisionTower.

    Fields: num_layers: behind which states are taken. width: of rows. held: tensors that the host reads, by name.
    """

    encoder: EncoderSettings
    num_layers: int
    width: int
    held: dict[str, F32] = field(default_factory=dict)

    host_tensors = (_TABLE, _BETWEEN, _BEHIND)

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    @property
    def block(self) -> int:
        """Pixels on its side."""
        return SIDE * self.encoder.patch_size

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """Of the head that pools patches and the layers behind the last that is asked; what others are made of."""
        behind = range(self.num_layers, self.encoder.num_layers)
        return (
            *(f"{_TOWER}.{part}.*" for part in ("head", "post_layernorm")),
            *(f"{_TOWER}.encoder.layers.{number}.*" for number in behind),
            f"{_TOWER}.encoder.layers.*.self_attn.q_proj.bias",
        )

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width = self.encoder.hidden_size
        lines = {name: tensors[name].reshape(1, -1) for name in (_BETWEEN, _BEHIND)}
        self.held |= {name: checked_table(lines, name, 1, width) for name in lines}
        self.held[_TABLE] = checked_table(tensors, _TABLE, SIDE**2, width)

    # -- sizes --------------------------------------------------------------------------------------------------------

    def _sheet(self, height: int, width: int) -> Sheet:
        return Sheet.of(height, width, self.block, SIDE)

    def patches(self, height: int, width: int) -> int:
        return sum(self.sequences(height, width)[0])

    def sequences(self, height: int, width: int) -> Sequences:
        """The whole picture, then its blocks."""
        seen = (_filled(each) for each in self._sheet(height, width).seen)
        return ((SIDE**2, *(high * wide for high, wide in seen)),)

    def most_sequences(self, patches: int) -> int:
        # a block has four patches at least
        return max(1, patches // 4)

    def rows(self, height: int, width: int) -> int:
        high, wide = self._sheet(height, width).kept
        half = SIDE // 2
        return high * (wide + 1) + 1 + half * (half + 1)

    def most_rows(self, patches: int) -> int:
        """A line of one row has another behind it."""
        return max(1, patches // 2)

    # -- what lies between the programs -------------------------------------------------------------------------------

    def inputs(self, tile: F32) -> TowerInputs:
        if _TABLE not in self.held:
            raise InvariantError("a table of positions is read before it is held")
        size, block, patch = (tile.shape[0], tile.shape[1]), self.block, self.encoder.patch_size
        sheet = self._sheet(*size)
        picture = tile[: sheet.rows * block, : sheet.columns * block]
        of_lines, of_columns = (cubic_weights(block, count) for count in picture.shape[:2])
        whole = np.ascontiguousarray(resampled(picture.reshape(-1, 3), of_lines, of_columns))
        patches, positions, unseen = [], [], []
        there = ((SIDE, SIDE), *sheet.seen)
        for pixels, seen in zip((whole, *sheet.blocks(picture, block)), there, strict=True):
            high, wide = _filled(seen)
            patches.append(patch_rows(pixels[: high * patch, : wide * patch], patch))
            places, hidden = _places(seen)
            positions.append(self.held[_TABLE][places])
            unseen.append(hidden)
        told = np.zeros((sum(map(len, unseen)), _STEP), np.float32)
        told[:, 0] = np.concatenate(unseen)
        return TowerInputs((np.concatenate(patches), np.concatenate(positions), told), size)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        sheet, half, width = self._sheet(*grid), SIDE // 2, self.encoder.hidden_size
        if not self.held:
            raise InvariantError("vectors between rows are read before they are held")
        whole, at = _means(hidden[: SIDE**2], (SIDE, SIDE)), SIDE**2
        kept = np.empty((*sheet.kept, width), np.float32)
        for number, seen in enumerate(sheet.seen):
            filled = _filled(seen)
            means = _means(hidden[at : at + filled[0] * filled[1]], filled)
            at += filled[0] * filled[1]
            top, left = (half * place for place in divmod(number, sheet.columns))
            kept[top : top + len(means), left : left + means.shape[1]] = means
        return np.concatenate([self._lines(kept), self.held[_BETWEEN], self._lines(whole)])

    def _lines(self, rows: F32) -> F32:
        """[high * (wide + 1), E] of rows [high, wide, E]."""
        behind = np.broadcast_to(self.held[_BEHIND], (len(rows), 1, rows.shape[2]))
        return np.concatenate([rows, behind], axis=1).reshape(-1, rows.shape[2])

    # -- what is computed ---------------------------------------------------------------------------------------------

    @property
    def head_dim(self) -> int:
        """Channels of a head, with that by which patches are kept from sight."""
        return _STEP * (self.encoder.head_dim // _STEP + 1)

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        wide = self.encoder.num_heads * self.head_dim
        names = [f"{_TOWER}.encoder.layers.{number}.self_attn" for number in range(self.num_layers)]
        made = {f"{name}.q_proj.made_bias": Made((wide,), (f"{name}.q_proj.bias",), self._asks) for name in names}
        return {**made, f"{_TOWER}.made_unseen": Made((wide, _STEP), (), self._unseen)}

    def _asks(self, bias: F32) -> F32:
        """Of queries, which ask each key whether it is seen."""
        found = np.zeros((self.encoder.num_heads, self.head_dim), np.float32)
        found[:, : self.encoder.head_dim] = bias.reshape(self.encoder.num_heads, -1)
        found[:, self.encoder.head_dim] = 1.0
        return found.reshape(-1)

    def _unseen(self) -> F32:
        """What keys are told, of the first of _STEP numbers."""
        found = np.zeros((self.encoder.num_heads, self.head_dim, _STEP), np.float32)
        found[:, self.encoder.head_dim, 0] = -_HIDES
        return found.reshape(-1, _STEP)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, f"{_TOWER}.embeddings.patch_embedding")
        with b.part("embed"), b.part("unseen"):
            weight = b.weight(f"{_TOWER}.made_unseen", (c.num_heads * self.head_dim, _STEP), c.dtype)
            unseen = b.linear(b.cast(b.given(_STEP, 2), c.dtype), weight)
        for number in range(self.num_layers):
            x = self._layer(b, x, unseen, number)
        return pooled_states(b, x)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = linear(b, c, b.given(c.hidden_size, 0), f"{_EMBED}.img_projection_up", self.width, "up")
        with b.part("act"):
            x = activated(b, x, "gelu")
        return pooled_states(b, linear(b, c, x, f"{_EMBED}.img_projection_down", self.width, "down"))

    def _layer(self, b: GraphBuilder, x: Value, unseen: Value, number: int) -> Value:
        c, name = self.encoder, f"{_TOWER}.encoder.layers.{number}"
        with b.part(f"layers.{number}.attn"):
            a = self._attention(b, rounded_norm(b, c, x, f"{name}.layer_norm1"), unseen, f"{name}.self_attn")
            o = linear(b, c, a, f"{name}.self_attn.out_proj", c.hidden_size, "o")
            with b.part("o"):
                x = b.add(x, o)
        with b.part(f"layers.{number}.mlp"):
            h = rounded_norm(b, c, x, f"{name}.layer_norm2")
            m = linear(b, c, h, f"{name}.mlp.fc1", c.intermediate_size, "up")
            with b.part("act"):
                m = b.cast(activated(b, m, c.act), c.dtype)
            down = linear(b, c, m, f"{name}.mlp.fc2", c.hidden_size, "down")
            with b.part("down"):
                return b.add(x, down)

    def _attention(self, b: GraphBuilder, h: Value, unseen: Value, name: str) -> Value:
        c, wide = self.encoder, self.head_dim
        q, k, v = (self._of_heads(b, h, name, part) for part in "qkv")
        with b.part("unseen"):
            k = b.add(k, unseen)
        with b.part("kv"):
            b.kv_write(k, v, 0, c.num_heads, wide)
        with b.part("attention"):
            a = b.attention(
                b.cast(q, c.dtype),
                layer=0,
                num_heads=c.num_heads,
                num_kv_heads=c.num_heads,
                head_dim=wide,
                scale=c.head_dim**-0.5,
                window=None,
                softcap=None,
                both_ways=True,
                result_dim=c.head_dim,
            )
            return b.cast(a, c.dtype)

    def _of_heads(self, b: GraphBuilder, h: Value, name: str, part: str) -> Value:
        """Queries, keys or values, [T, H * head_dim]: zeros in the further channels of keys and values."""
        c, wide = self.encoder, self.head_dim
        module, width = f"{name}.{part}_proj", c.num_heads * wide

        def widened(kind: str) -> tuple[RowSegment, ...]:
            firsts = range(0, c.hidden_size, c.head_dim)
            each = ((RowSegment(f"{module}.{kind}", at, at + c.head_dim)) for at in firsts)
            return tuple(run for own in each for run in (own, RowSegment(None, 0, wide - c.head_dim)))

        with b.part(part):
            weight = b.weight(f"{module}.weight", (width, c.hidden_size), c.dtype, segments=widened("weight"))
            if part == "q":
                return b.linear(h, weight, b.weight(f"{module}.made_bias", (width,), "float32"))
            return b.linear(h, weight, b.weight(f"{module}.bias", (width,), "float32", segments=widened("bias")))


def _filled(seen: Grid) -> Grid:
    """Lines and columns of patches that are computed of as many that are seen: rows are of two by two."""
    return seen[0] + seen[0] % 2, seen[1] + seen[1] % 2


def _means(hidden: F32, grid: Grid) -> F32:
    """[rows / 2, columns / 2, E] of those of each 2 x 2 patches."""
    return np.asarray(blocks(hidden, grid, 2).mean(axis=(2, 3), dtype=np.float32), np.float32)


def _places(seen: Grid) -> tuple[np.ndarray[Any, np.dtype[np.int64]], F32]:
    """[T] entries of the table of positions, over which what is seen of a block is stretched; and of each patch 1 where
    it is kept from sight, which has the first entry, else 0."""
    filled = _filled(seen)
    at = [stretched(count, own, SIDE) for count, own in zip(filled, seen, strict=True)]
    unseen = (np.arange(filled[0]) >= seen[0])[:, None] | (np.arange(filled[1]) >= seen[1])
    entries = np.where(unseen, 0, at[0][:, None] * SIDE + at[1])
    return entries.reshape(-1), unseen.reshape(-1).astype(np.float32)


def open_phi4_multimodal(data: Mapping[str, Any], dtype: str, where: str) -> Phi4MultimodalTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("phi4_multimodal_vision",))
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    size = fields.integer("image_size", 1, MAX_IMAGE_SIZE, 448)
    if size // encoder.patch_size != SIDE or size % encoder.patch_size:
        fields.unsupported("image_size", size, f"blocks have {SIDE} patches of {encoder.patch_size} pixels on a side")
    if fields.integer("crop_size", 1, MAX_IMAGE_SIZE, 448) != size:
        fields.fail("crop_size", fields.raw("crop_size"), f"must be image_size={size}")
    at = feature_layer(fields, encoder.num_layers, -2, "feature_layer")
    fields.refuse_unread(IGNORABLE | keys("image_token_id"), {})
    return Phi4MultimodalTower(encoder, at, text_width(data, where, 3072))
