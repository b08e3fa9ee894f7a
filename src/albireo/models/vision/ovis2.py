"""Ovis 2: AIMv2 of square tiles, whose patches are not projected but read as words: each block of them is a share of
every word of a vocabulary of pictures, and its row that share of the words' embeddings.

Found by tower.py. The encoder is the stem; the tower's graph tells how near a block is to each word, the host makes
shares of that, the projector is the table of words. Its last five are no words but marks around tiles, which are rows,
too: which a tile has, its width tells. Sources: Lu et al. 2024, Ovis, arXiv:2405.20797; Fini et al. 2024, AIMv2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.stem import GivesRowsAlone, Stem
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, Names, layers, linear, norm
from albireo.models.vision.patches import F32, Grid, Sequences, one_size, patch_rows, side_by_side
from albireo.models.vision.positions import checked_table, held
from albireo.models.vision.settings import IGNORABLE, encoder_settings, patches_on_side, text_width, vision_fields
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_NAMES = Names(
    "rms_norm1",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.out_proj",
    "rms_norm2",
    "ffn.up_proj",
    "ffn.down_proj",
    gate="ffn.gate_proj",
)
_AIM, _WORDS = "vision_tower.transformer", "visual_embeddings_table"
_HEAD, _HEAD_NORM, _TABLE = "vision_tower.head_linear", "vision_tower.head_norm", f"{_WORDS}.weight"
_HEAD_EPS = 1e-5
_DEFAULTS = sizes(1024, 2816, 24, 8, patch_size=14, hidden_act="silu")
_MAX_WORDS, _MAX_STRIDE = 2**20, 16
#: What the authors' files say of this tower beside: of training, and of what they call its encoder.
_OF_AUTHORS = keys("tau depths backbone_config backbone_kwargs")
_START, _GRID, _COLUMN, _ROW, _END = range(5)


class Framed(NamedTuple):
    """Marks before and behind a tile."""

    before: tuple[int, ...]
    behind: tuple[int, ...]

    @property
    def num_marks(self) -> int:
        return len(self.before) + len(self.behind)


#: A tile is as many pixels wider than it is high as its place here: a picture that is one tile; the whole of one that
#: others follow; of these one in a line, the last of a line, and the last of all.
FRAMES = (
    Framed((_START,), (_GRID, _END)),
    Framed((_START,), (_GRID,)),
    Framed((), (_COLUMN,)),
    Framed((), (_ROW,)),
    Framed((), (_END,)),
)
NUM_MARKS = 5


def frame_of(height: int, width: int) -> Framed:
    """Marks of a tile of so many pixels. Raises: InvariantError for one as wide as none of FRAMES says."""
    if not 0 <= width - height < len(FRAMES):
        raise InvariantError(f"a tile of {height} x {width} pixels says no marks around it")
    return FRAMES[width - height]


@dataclass(frozen=True, slots=True)
class AimStem(GivesRowsAlone):
    """Implements stem.Stem. Fields: side: patches on that of a tile. stride: on that of what becomes one row."""

    encoder: EncoderSettings
    side: int
    stride: int

    def graphs(self) -> tuple[Graph, ...]:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            name = f"{_AIM}.embeddings"
            x = linear(b, c, b.given(c.patch_width, 0), f"{name}.patch_embedding", c.hidden_size, "patches")
            x = norm(b, c, x, f"{name}.rms_norm")
            with b.part("positions"):
                table = b.weight(f"{name}.position_embedding.weight", (self.side**2, c.hidden_size), c.dtype)
                x = b.add(x, b.embed(b.positions, table))
        x = layers(b, c, x, f"{_AIM}.encoder.layers", _NAMES)
        with b.part("head"):
            return (pooled_states(b, norm(b, c, x, f"{_AIM}.rms_norm")),)

    def most_rows(self, patches: int) -> tuple[int, ...]:
        return (self.side**2,)

    def pieces(self, tile: F32) -> Iterator[F32]:
        high = len(tile)
        yield patch_rows(tile[:, :high], self.encoder.patch_size)

    def sequences(self, number: int, rows: int) -> Sequences:
        return ()

    def behind(self, number: int, hidden: F32) -> F32:
        return side_by_side(hidden, (self.side, self.side), self.stride)


@dataclass(slots=True)
class Ovis2Tower(GivesRowsOnce):
    """Implements tower.VisionTower; its patches are what the stem gives.

    Fields: aim: the stem. num_words: of the table, marks among them. width: of a row. takes_nearest: a row is the
    embedding of one word. marks: [NUM_MARKS, width], once held; gain and offset: [num_words - NUM_MARKS] of the norm
    of what is near, too.
    """

    aim: AimStem
    num_words: int
    width: int
    takes_nearest: bool
    merge: int = 1
    marks: F32 | None = field(default=None, kw_only=True)
    gain: F32 | None = field(default=None, kw_only=True)
    offset: F32 | None = field(default=None, kw_only=True)

    host_tensors = (f"{_HEAD_NORM}.weight", f"{_HEAD_NORM}.bias", _TABLE)

    @property
    def dtype(self) -> str:
        return self.aim.encoder.dtype

    @property
    def stem(self) -> Stem:
        return self.aim

    def hold(self, tensors: Mapping[str, F32]) -> None:
        words = self.num_words - NUM_MARKS
        flat = {name: tensors[name].reshape(1, -1) for name in self.host_tensors[:2]}
        gain, offset = (checked_table(flat, name, 1, words) for name in flat)
        self.gain, self.offset = gain[0], offset[0]
        # as graphs read it: a column of each word
        self.marks = checked_table(tensors, _TABLE, self.width, self.num_words)[:, words:].T.copy()

    def patches(self, height: int, width: int) -> int:
        frame_of(height, width)
        return one_size(height, height, self.aim.side, self.aim.encoder.patch_size) // self.aim.stride**2

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) + frame_of(height, width).num_marks

    def projected(self, height: int, width: int) -> int:
        return self.patches(height, width)

    def inputs(self, tile: F32) -> TowerInputs:
        """Of what the stem gives."""
        side = self.aim.side // self.aim.stride
        return TowerInputs((tile,), (side, side))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.aim.encoder
        x = b.given(c.hidden_size * self.aim.stride**2, 0)
        return pooled_states(b, linear(b, c, x, _HEAD, self.num_words - NUM_MARKS, "words", False))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """[rows, num_words] shares, of marks none."""
        if self.gain is None or self.offset is None:
            raise InvariantError(f"{_HEAD_NORM} is read before it is held")
        shares = np.zeros((len(hidden), self.num_words), np.float32)
        # row by row: of all at once there would be several copies of what is large already
        for given, share in zip(hidden, shares, strict=True):
            near = given - given.mean()
            near *= self.gain / np.sqrt(np.square(near).mean() + np.float32(_HEAD_EPS))
            near += self.offset
            if self.takes_nearest:
                share[near.argmax()] = 1.0
                continue
            far = np.exp(near - near.max())
            np.divide(far, far.sum(), out=share[:-NUM_MARKS])
        return shares

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.aim.encoder
        return pooled_states(b, linear(b, c, b.given(self.num_words, 0), _WORDS, self.width, "words", False))

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        before, behind = (held(self.marks, _TABLE)[list(places)] for places in frame_of(*size))
        return np.concatenate([before, rows, behind])


def open_ovis2(data: Mapping[str, Any], dtype: str, where: str) -> Ovis2Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("ovis2_vision",))
    encoder = encoder_settings(
        fields, dtype, _DEFAULTS, eps=fields.number("rms_norm_eps", 1e-30, 1.0, 1e-5), is_rms=True
    )
    of_attention, of_ffn = fields.flag("qkv_bias", False), fields.flag("mlp_bias", False)
    if of_attention and not of_ffn:
        fields.unsupported("qkv_bias", True, "supported: where mlp_bias is true, too")
    encoder = replace(encoder, has_bias=of_ffn, has_qkv_bias=of_attention, has_out_bias=of_attention)
    stride = fields.integer("hidden_stride", 1, _MAX_STRIDE, 1)
    side = patches_on_side(fields, encoder, 224, stride)
    how = fields.one_of("tokenize_function", ("softmax", "st_argmax"), "softmax")
    words = fields.integer("vocab_size", NUM_MARKS + 1, _MAX_WORDS, 16384)
    whole = Fields(data, where)
    ids = whole.raw("visual_indicator_token_ids")
    if isinstance(ids, list) and len(ids) != NUM_MARKS:
        whole.unsupported("visual_indicator_token_ids", ids, f"supported: {NUM_MARKS} of them")
    fields.refuse_unread(
        IGNORABLE | _OF_AUTHORS,
        {"num_visual_indicator_tokens": (NUM_MARKS,), "drop_cls_token": (False,), "use_indicators": (False,)},
    )
    return Ovis2Tower(AimStem(encoder, side, stride), words, text_width(data, where, 1536), how == "st_argmax")
