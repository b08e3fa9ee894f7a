"""PaliGemma 1 and 2: SigLIP of square tiles of one size, and one linear.

Found by tower.py. Sources: Beyer et al. 2024, PaliGemma; Steiner et al. 2024, PaliGemma 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import linear
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_WIDTH,
    encoder_settings,
    patches_on_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, siglip
from albireo.models.vision.square import SquareTower

#: Of published files; and a head would pool patches, and is not asked for rows.
_OF_OTHERS = keys("vision_use_head num_image_tokens num_positions projection_dim projector_hidden_act vocab_size")


class PaliGemmaTower(SquareTower):
    """Implements tower.VisionTower."""

    __slots__ = ()

    def graph(self) -> Graph:
        return siglip(self.encoder, "vision_tower", self.side**2)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = linear(b, c, b.given(c.hidden_size, 0), "multi_modal_projector.linear", self.width, "down")
        return pooled_states(b, x)


def open_paligemma(data: Mapping[str, Any], dtype: str, where: str) -> PaliGemmaTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = vision_fields(data, where, ("siglip_vision_model",)), Fields(data, where)
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    side, width = patches_on_side(fields, encoder, 224), text_width(data, where, 2048)
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, {})
    projected = whole.integer("projection_dim", 1, MAX_WIDTH, 2048)
    if projected != width:
        whole.fail("projection_dim", projected, f"must be the text part's hidden_size={width}")
    return PaliGemmaTower(encoder, side, 1, width)
