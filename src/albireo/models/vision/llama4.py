"""Llama 4 Scout and Maverick: a tower of square tiles, whose patches have learned positions and are rotated by column
and row, too; blocks of 2 x 2 patches side by side, an MLP, and a linear to the text part's width.

Found by tower.py. The class is last in the checkpoint's table, and first here; it turns by nothing.
Source: Meta 2025, Llama 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import Names, embedded, layers, linear, norm
from albireo.models.vision.patches import F32
from albireo.models.vision.positions import axial_theta, checked_table, places, rotations
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_WIDTH,
    check_quarters,
    encoder_settings,
    merged_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.square import ClassTower
from albireo.models.vision.tower_inputs import TowerInputs

_NAMES = Names()
_DEFAULTS = sizes(768, 5632, 34, 16, patch_size=14, hidden_act="gelu")
_VISION = "vision_model"
_CLASS, _TABLE = f"{_VISION}.class_embedding", f"{_VISION}.positional_embedding_vlm"
_ADAPTER = f"{_VISION}.vision_adapter.mlp"
#: Of all norms, whatever files say.
_EPS = 1e-5
#: Of training, and what is taken anyway: what the last layer gives, without the class.
_OF_OTHERS = keys("projector_dropout")
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "norm_eps": (_EPS,),
    "multi_modal_projector_bias": (False,),
    "vision_feature_layer": (-1,),
    "vision_feature_select_strategy": ("default",),
}


@dataclass(slots=True)
class Llama4Tower(ClassTower):
    """Implements tower.VisionTower. Fields: merge: patches on a side of what becomes one row. inner: width of the MLP
    behind. theta: base of frequencies."""

    merge: int
    inner: int
    theta: float

    host_tensors = (_CLASS, _TABLE)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        table = checked_table(tensors, _TABLE, self.side**2 + 1, self.encoder.hidden_size)
        first = checked_table({_CLASS: tensors[_CLASS].reshape(1, -1)}, _CLASS, 1, self.encoder.hidden_size)
        self.positions = np.concatenate([table[-1:] + first, table[:-1]])

    def inputs(self, tile: F32) -> TowerInputs:
        # the class's row and column are none: before them, others begin at one
        given, c = super(Llama4Tower, self).inputs(tile), self.encoder
        of_axis = base_frequencies(self.theta, c.head_dim // 2)
        spots = np.concatenate([np.zeros((1, 2), np.int64), places(given.grid).reshape(-1, 2)[:, ::-1] + 1])
        return TowerInputs(given.given, given.grid, rotations(spots, of_axis, of_axis))

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = embedded(b, c, f"{_VISION}.patch_embedding.linear", False)
        with b.part("embed"):
            x = norm(b, c, x, f"{_VISION}.layernorm_pre")
        x = layers(b, c, x, f"{_VISION}.model.layers", _NAMES)
        with b.part("head"):
            return pooled_states(b, norm(b, c, x, f"{_VISION}.layernorm_post"))

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size * self.merge**2, 0)
        for part, name in (("up", "fc1"), ("down", "fc2")):
            x = linear(b, c, x, f"{_ADAPTER}.{name}", self.inner, part, False)
            with b.part(f"{part}_act"):
                x = b.unary(x, "gelu")
        return pooled_states(b, linear(b, c, x, "multi_modal_projector.linear_1", self.width, "out", False))


def open_llama4(data: Mapping[str, Any], dtype: str, where: str) -> Llama4Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("llama4_vision_model",))
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=_EPS, turned_share=1.0, turns_neighbours=True)
    check_quarters(fields, encoder)
    if encoder.act != "gelu":
        fields.unsupported("hidden_act", fields.raw("hidden_act"), "layers compute gelu, whatever is said")
    merge, side = merged_side(fields, "pixel_shuffle_ratio", fields, encoder, 448)
    inner = _width_inside(fields, encoder.intermediate_size, encoder.hidden_size * merge**2)
    theta = axial_theta(fields)
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, _NEUTRAL)
    return Llama4Tower(encoder, side, text_width(data, where, 5120), merge, inner, theta)


def _width_inside(fields: Fields, wide: int, joined: int) -> int:
    """Of the MLP behind the tower, whose widths three keys say. Args: wide: what it reads. joined: what it is given."""
    if wide != joined:
        what = f"must be hidden_size / pixel_shuffle_ratio², here {joined}: it is what is read of a block of patches"
        fields.fail("intermediate_size", wide, what)
    inner = fields.integer("projector_input_dim", 1, MAX_WIDTH, 4096)
    for key, default in (("projector_output_dim", 4096), ("vision_output_dim", 7680)):
        said = fields.integer(key, 1, MAX_WIDTH, default)
        if said != inner:
            fields.fail(key, said, f"must be projector_input_dim={inner}: one is given to the other")
    return inner
