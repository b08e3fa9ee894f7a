"""Janus, Janus-Pro and DeepSeek-VL: SigLIP of square tiles of one size, and linears.

Found by tower.py. What Janus draws with is left where it lies. Sources: Chen et al. 2025, Janus-Pro, arXiv:2501.17811;
Lu et al. 2024, DeepSeek-VL, arXiv:2403.05525.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import Names, linear
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_WIDTH,
    encoder_settings,
    patches_on_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, NAMES, siglip
from albireo.models.vision.square import SquareTower

_JANUS = NAMES._replace(out="self_attn.projection_layer")
_OF_JANUS: Mapping[str, Any] = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 16,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
}
#: Of training.
_OF_TRAINING = keys("hidden_dropout_rate projection_dropout")


@dataclass(frozen=True, slots=True)
class JanusTower(SquareTower):
    """Implements tower.VisionTower. Fields: names: of a layer's parts. linears: names of the projector's. act: between
    them."""

    names: Names
    linears: tuple[str, ...]
    act: str

    #: Of a head that pools patches.
    unread_tensors = ("vision_model.head.*",)

    def graph(self) -> Graph:
        return siglip(self.encoder, "vision_model", self.side**2, names=self.names)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size, 0)
        for number, name in enumerate(self.linears):
            if number:
                with b.part(f"act.{number}"):
                    x = activated(b, x, self.act)
            x = linear(b, c, x, f"aligner.{name}", self.width, name)
        return pooled_states(b, x)


def open_janus(data: Mapping[str, Any], dtype: str, where: str) -> JanusTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, width = vision_fields(data, where, ("janus_vision_model",)), text_width(data, where, 4096)
    ratio = fields.number("mlp_ratio", 1e-3, 100.0, 4.0)
    hidden = fields.integer("hidden_size", 1, MAX_WIDTH, _OF_JANUS["hidden_size"])
    encoder = encoder_settings(fields, dtype, {**_OF_JANUS, "intermediate_size": int(hidden * ratio)})
    encoder = replace(encoder, has_qkv_bias=fields.flag("attention_bias", True))
    side = patches_on_side(fields, encoder, 384)
    depth = fields.integer("depth", 1, 64, 2)
    projected = fields.integer("projection_dim", 1, MAX_WIDTH, 2048)
    count = fields.integer("num_image_tokens", 1, 2**20, 576)
    if projected != width:
        fields.fail("projection_dim", projected, f"must be the text part's hidden_size={width}")
    if count != side**2:
        fields.fail("num_image_tokens", count, f"must be the {side**2} patches of a tile")
    fields.refuse_unread(IGNORABLE | _OF_TRAINING, {"use_qk_norm": (False,)})
    linears = "fc1", *(f"hidden_layers.{number}" for number in range(depth - 1))
    return JanusTower(encoder, side, 1, width, _JANUS, linears, encoder.act)


def open_deepseek_vl(data: Mapping[str, Any], dtype: str, where: str) -> JanusTower:
    """Raises: as open_janus()."""
    fields = vision_fields(data, where, ("siglip_vision_model",))
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    side = patches_on_side(fields, encoder, 224)
    # a head would pool patches, and is not asked for rows
    fields.refuse_unread(IGNORABLE | keys("vision_use_head"), {})
    return JanusTower(encoder, side, 1, text_width(data, where, 4096), NAMES, ("linear1", "linear2"), "gelu")
