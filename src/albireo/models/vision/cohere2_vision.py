"""Command A Vision and Aya Vision: SigLIP of square tiles of one size, blocks of patches side by side, and a gated pair
of linears, which in Aya Vision has a norm before it.

Found by tower.py. Sources: Cohere 2025, Command A Vision; Dash et al. 2025, Aya Vision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import linear, norm
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    encoder_settings,
    feature_layer,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, siglip
from albireo.models.vision.square import SquareTower

_TOWER, _PROJECTOR = "vision_tower", "multi_modal_projector"


@dataclass(frozen=True, slots=True)
class Cohere2VisionTower(SquareTower):
    """Implements tower.VisionTower.

    Fields: gated: rows of the projector's first linear, of which the second half is a gate for the first. norm_eps: of
    a norm before it; None: there is none. num_layers: that are computed, behind which states are taken; 0: behind all,
    and the norm behind them.
    """

    gated: int
    norm_eps: float | None
    num_layers: int

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        if not self.num_layers:
            return ()
        layers = range(self.num_layers, self.encoder.num_layers)
        return f"{_TOWER}.post_layernorm.*", *(f"{_TOWER}.encoder.layers.{number}.*" for number in layers)

    def graph(self) -> Graph:
        return siglip(self.encoder, _TOWER, self.side**2, num_layers=self.num_layers or None)

    def projector(self) -> Graph:
        b, c, half, name = GraphBuilder(), self.encoder, self.gated // 2, f"{_PROJECTOR}.linear_1"
        x = b.given(c.hidden_size * self.merge**2, 0)
        if self.norm_eps is not None:
            x = norm(b, c, x, f"{_PROJECTOR}.layernorm", self.norm_eps)
        x, gate = (
            linear(b, c, x, f"{name}.{part}", half, part, rows=(name, first))
            for part, first in (("up", 0), ("gate", half))
        )
        with b.part("act"):
            x = b.mul(activated(b, gate, "silu"), x)
        return pooled_states(b, linear(b, c, x, f"{_PROJECTOR}.linear_2", self.width, "down"))


def open_cohere2_vision(data: Mapping[str, Any], dtype: str, where: str) -> Cohere2VisionTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    return _opened(data, dtype, where, 36864, None, False)


def open_aya_vision(data: Mapping[str, Any], dtype: str, where: str) -> Cohere2VisionTower:
    """Raises: as open_cohere2_vision()."""
    whole = Fields(data, where)
    strategy = whole.text("vision_feature_select_strategy", "full")
    if strategy != "full":
        whole.unsupported("vision_feature_select_strategy", strategy, "supported: full, all patches")
    eps = whole.number("adapter_layer_norm_eps", 1e-30, 1.0, 1e-6)
    return _opened(data, dtype, where, text_width(data, where), eps, True)


def _opened(
    data: Mapping[str, Any], dtype: str, where: str, gated: int, norm_eps: float | None, is_behind_layer: bool
) -> Cohere2VisionTower:
    """Args: gated: of the projector, where nothing is said. is_behind_layer: states are taken behind one."""
    fields, whole = vision_fields(data, where, ("siglip_vision_model",)), Fields(data, where)
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    size = fields.integer("image_size", 1, MAX_IMAGE_SIZE, 224)
    # a head would pool patches, and is not asked for rows
    fields.refuse_unread(IGNORABLE | keys("vision_use_head"), {})
    # once there were others of both
    for key, only in (("alignment_activation_fn", "swiglu"), ("enable_adapter_layer_norm", norm_eps is not None)):
        whole.only(key, only)
    merge = whole.integer("downsample_factor", 1, 64, 2)
    side = size // encoder.patch_size
    if side % merge or side == 0:
        whole.fail("downsample_factor", merge, f"must cut the {side} patches on a side of a tile of {size} pixels")
    gated = whole.integer("alignment_intermediate_size", 2, 16 * MAX_WIDTH, gated)
    if gated % 2:
        whole.fail("alignment_intermediate_size", gated, "must be even: half of it is a gate")
    num_layers = feature_layer(whole, encoder.num_layers, -1) if is_behind_layer else 0
    return Cohere2VisionTower(encoder, side, merge, text_width(data, where), gated, norm_eps, num_layers)
