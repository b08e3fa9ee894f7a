"""Towers of models that put texts and pictures into one space: of a square tile one row, which is the picture's
embedding. CLIP's is made of the class row, SigLIP's of what a learned row sees of all patches.

Found by tower.py. Sources: Radford et al. 2021, CLIP; Zhai et al. 2023, SigLIP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import embedded, layers, linear, mlp, norm, rounded_norm, seen
from albireo.models.vision.llava import CLIP
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.positions import checked_table
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    encoder_settings,
    patches_on_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, NAMES, siglip
from albireo.models.vision.square import ClassTower, SquareTower

_TOWER, _HEAD = "vision_model", "vision_model.head"
_CLASS, _TABLE = f"{_TOWER}.embeddings.class_embedding", f"{_TOWER}.embeddings.position_embedding.weight"


@dataclass(slots=True)
class ClipTower(ClassTower):
    """Implements tower.VisionTower."""

    merge: int = 1

    host_tensors = (_CLASS, _TABLE)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        table = checked_table(tensors, _TABLE, 1 + self.side**2, self.encoder.hidden_size)
        first = checked_table({_CLASS: tensors[_CLASS].reshape(1, -1)}, _CLASS, 1, self.encoder.hidden_size)
        self.positions = np.concatenate([table[:1] + first, table[1:]])

    def rows(self, height: int, width: int) -> int:
        self.patches(height, width)
        return 1

    def most_rows(self, patches: int) -> int:
        return 1

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, f"{_TOWER}.embeddings.patch_embedding", False)
        with b.part("embed"):
            x = norm(b, c, x, f"{_TOWER}.pre_layrnorm")
        return pooled_states(b, layers(b, c, x, f"{_TOWER}.encoder.layers", NAMES))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden[:1]

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = norm(b, c, b.given(c.hidden_size, 0), f"{_TOWER}.post_layernorm")
        return pooled_states(b, linear(b, c, x, "visual_projection", self.width, "projector", False))


@dataclass(frozen=True, slots=True)
class SiglipTower(SquareTower):
    """Implements tower.VisionTower. All patches ask what the learned row does, so that each is given what it sees:
    they cost as much as another layer, and the first is taken."""

    def rows(self, height: int, width: int) -> int:
        self.patches(height, width)
        return 1

    def most_rows(self, patches: int) -> int:
        return patches

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """What others are made of."""
        return f"{_HEAD}.probe", f"{_HEAD}.attention.in_proj_*"

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        width, joined = self.encoder.hidden_size, f"{_HEAD}.attention.in_proj"
        asked = Made((1, width), (f"{_HEAD}.probe", f"{joined}_weight", f"{joined}_bias"), _question)
        parts = {f"{_HEAD}.attention.q": asked}
        for place, part in ((1, "k"), (2, "v")):
            for kind, shape in (("weight", (width, width)), ("bias", (width,))):
                third = partial(_third, place)
                parts[f"{_HEAD}.attention.{part}.{kind}"] = Made(shape, (f"{joined}_{kind}",), third)
        return parts

    def graph(self) -> Graph:
        return siglip(self.encoder, _TOWER, self.side**2)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size, 0)
        with b.part("head.attn"):
            q = b.embed(b.token_ids, b.weight(f"{_HEAD}.attention.q", (1, c.hidden_size), "float32"))
            k, v = (linear(b, c, x, f"{_HEAD}.attention.{part}", c.hidden_size, part) for part in "kv")
            a = seen(b, c, q, k, v)
            x = linear(b, c, a, f"{_HEAD}.attention.out_proj", c.hidden_size, "o")
        with b.part("head.mlp"):
            h = rounded_norm(b, c, x, f"{_HEAD}.layernorm")
            widths = c.intermediate_size, c.hidden_size
            x = b.add(x, mlp(b, c, h, f"{_HEAD}.mlp", widths, c.act, parts=("fc1", "fc2")))
        return pooled_states(b, x)

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        return rows[:1]


def _question(probe: F32, weight: F32, bias: F32) -> F32:
    """The query of a learned row [1, E], of a linear that gives those of keys and values, too."""
    width = len(bias) // 3
    exact = weight[:width].astype(np.float64) @ probe.reshape(-1).astype(np.float64) + bias[:width]
    return exact.astype(np.float32).reshape(1, -1)


def _third(place: int, joined: F32) -> F32:
    return np.ascontiguousarray(joined.reshape(3, -1, *joined.shape[1:])[place])


def open_clip(data: Mapping[str, Any], dtype: str, where: str) -> ClipTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("clip_vision_model",))
    encoder = encoder_settings(fields, dtype, CLIP)
    side = patches_on_side(fields, encoder, 224)
    fields.refuse_unread(IGNORABLE | keys("projection_dim dropout vocab_size logit_scale_init_value"), {})
    return ClipTower(encoder, side, _width(data, where, 512))


def open_siglip(data: Mapping[str, Any], dtype: str, where: str) -> SiglipTower:
    """Raises: as open_clip(); UnsupportedModel for a tower that pools nothing, or whose rows are of another width."""
    fields = vision_fields(data, where, ("siglip_vision_model",))
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    # of so400m, 384 pixels are 27 patches of 14, and 6
    side, spare = divmod(fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 224), encoder.patch_size)
    if not fields.flag("vision_use_head", True):
        fields.unsupported("vision_use_head", False, "what makes one row of all patches is wanted")
    fields.refuse_unread(IGNORABLE, {})
    width = text_width(data, where)
    if encoder.hidden_size != width:
        fields.unsupported("hidden_size", encoder.hidden_size, f"embeddings of texts have {width} values")
    return SiglipTower(encoder, side, 1, width, spare=spare)


def _width(data: Mapping[str, Any], where: str, default: int) -> int:
    """Of embeddings. Raises: UnsupportedModel where that of texts' is another."""
    whole, width = Fields(data, where), text_width(data, where)
    said = whole.integer("projection_dim", 1, 2**20, default)
    if said != width:
        whole.unsupported(
            "projection_dim", said, f"texts are computed with hidden_size={width}, which is to be the same"
        )
    return width
