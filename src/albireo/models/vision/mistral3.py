"""Mistral 3, Mistral Large 4 and LightOnOCR: Pixtral, whose patches are rotated by row and column and have no other
positions, and a merger; and Pixtral 12B in transformers' format, a LLaVA whose rows are patches.

Found by tower.py. Source: Agrawal et al. 2024, Pixtral 12B.
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
from albireo.models.vision.encoder import EncoderSettings, Names, layers, linear, mlp, norm
from albireo.models.vision.patches import F32, Grid, blocks, grid_of, patch_rows
from albireo.models.vision.positions import axial_theta, places, rotations
from albireo.models.vision.settings import (
    IGNORABLE,
    activation,
    encoder_settings,
    feature_layer,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import HoldsNothing, InBlocks, TowerInputs

_NAMES = Names(
    "attention_norm",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.o_proj",
    "ffn_norm",
    "feed_forward.up_proj",
    "feed_forward.down_proj",
    gate="feed_forward.gate_proj",
)
#: Of Mistral Large 4, whose tower is published by the names of its text part: what becomes of these. Channels that turn
#: with each other lie side by side.
_LARGE = Names(k="self_attn.wk", v="self_attn.wv", up="mlp.up_proj", down="mlp.down_proj", gate="mlp.gate_proj")
_DEFAULTS = sizes(1024, 4096, 24, 16, patch_size=16, hidden_act="gelu")
_PROJECTOR = "multi_modal_projector"


@dataclass(frozen=True, slots=True)
class Mistral3Tower(InBlocks, HoldsNothing):
    """Implements tower.VisionTower. Fields: merge: patches on a side of what becomes one row. theta: base of
    frequencies. eps: of the projector's norm, before its merger; None: there are none. act, has_bias: of its activation
    and linears. num_layers: that are computed. names: of parts of a layer."""

    encoder: EncoderSettings
    merge: int
    theta: float
    width: int
    eps: float | None
    act: str
    has_bias: bool
    num_layers: int
    names: Names = _NAMES

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        behind = range(self.num_layers, self.encoder.num_layers)
        return tuple(f"vision_tower.transformer.layers.{number}.*" for number in behind)

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid = grid_of(height, width, c.patch_size)
        every = base_frequencies(self.theta, c.head_dim)
        turns = rotations(places(grid), every[0::2], every[1::2])
        return TowerInputs((patch_rows(tile, c.patch_size),), grid, turns)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = linear(b, c, b.given(c.patch_width, 0), "vision_tower.patch_conv", c.hidden_size, "patches", False)
            x = norm(b, c, x, "vision_tower.ln_pre")
        x = layers(b, c, x, "vision_tower.transformer.layers", self.names, self.num_layers)
        if self.eps is not None:
            with b.part("head"):
                x = norm(b, c, x, f"{_PROJECTOR}.norm", self.eps)
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """A channel's numbers of all patches of a block lie side by side."""
        cut = blocks(hidden, grid, self.merge)
        return np.ascontiguousarray(cut.transpose(0, 1, 4, 2, 3).reshape(cut.shape[0] * cut.shape[1], -1))

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size * self.merge**2, 0)
        if self.eps is not None:
            x = linear(b, c, x, f"{_PROJECTOR}.patch_merger.merging_layer", c.hidden_size, "merger", False)
        return pooled_states(b, mlp(b, c, x, _PROJECTOR, (self.width, self.width), self.act, self.has_bias))


def open_mistral3(data: Mapping[str, Any], dtype: str, where: str) -> Mistral3Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    whole = Fields(data, where)
    is_large = whole.raw("model_type") == "mistral_large4"
    encoder, theta = _pixtral(data, dtype, where, is_large)
    last = whole.raw("vision_feature_layer")
    if last not in (None, -1) or isinstance(last, bool):
        whole.unsupported("vision_feature_layer", last, "supported: -1, the last")
    text = Fields(whole.table("text_config") or {}, f"{where}: text_config")
    return Mistral3Tower(
        encoder,
        whole.integer("spatial_merge_size", 1, 16, 2),
        theta,
        text_width(data, where),
        # what norms of the text part are given where nothing is said differs between its kinds
        text.number("rms_norm_eps", 1e-30, 1.0, 1e-5 if is_large or text.raw("model_type") == "ministral3" else 1e-6),
        activation(whole, "projector_hidden_act", "gelu"),
        whole.flag("multimodal_projector_bias", False),
        encoder.num_layers,
        _LARGE if is_large else _NAMES,
    )


def open_pixtral(data: Mapping[str, Any], dtype: str, where: str) -> Mistral3Tower:
    """Of a LLaVA. Raises: as open_mistral3()."""
    (encoder, theta), whole = _pixtral(data, dtype, where), Fields(data, where)
    strategy = whole.text("vision_feature_select_strategy", "default")
    if strategy != "full":
        whole.unsupported("vision_feature_select_strategy", strategy, "supported: full; no row of a Pixtral is a class")
    return Mistral3Tower(
        encoder,
        1,
        theta,
        text_width(data, where, 4096),
        None,
        activation(whole, "projector_hidden_act", "gelu"),
        whole.flag("multimodal_projector_bias", True),
        feature_layer(whole, encoder.num_layers, -2),
    )


def _pixtral(
    data: Mapping[str, Any], dtype: str, where: str, turns_neighbours: bool = False
) -> tuple[EncoderSettings, float]:
    """Its layers, and the base of frequencies."""
    fields = vision_fields(data, where, ("pixtral",))
    encoder = encoder_settings(
        fields,
        dtype,
        _DEFAULTS,
        eps=1e-5,
        is_rms=True,
        has_bias=False,
        turned_share=float(turns_neighbours),
        turns_neighbours=turns_neighbours,
    )
    if fields.integer("head_dim", 1, encoder.hidden_size, encoder.head_dim) != encoder.head_dim or encoder.head_dim % 4:
        what = f"heads are hidden_size / num_attention_heads, here {encoder.head_dim}, and four equal parts"
        fields.unsupported("head_dim", fields.raw("head_dim"), what)
    theta = axial_theta(fields)
    # the largest picture, which whoever makes tiles asks for; and what old default configs have by mistake
    ignorable = keys("image_size vocab_size is_composition")
    fields.refuse_unread(IGNORABLE | ignorable, {})
    return encoder, theta
