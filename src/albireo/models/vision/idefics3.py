"""Idefics3 and SmolVLM: SigLIP of square tiles of one size, a pixel shuffle, and one linear.

Found by tower.py. Source: Laurençon et al. 2024, Building and better understanding vision-language models.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.encoder import linear
from albireo.models.vision.settings import IGNORABLE, MAX_IMAGE_SIZE, encoder_settings, text_width, vision_fields
from albireo.models.vision.siglip import DEFAULTS, siglip
from albireo.models.vision.square import SquareTower

_DEFAULTS = {**DEFAULTS, "hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32}


class Idefics3Tower(SquareTower):
    """Implements tower.VisionTower."""

    __slots__ = ()

    def graph(self) -> Graph:
        return siglip(self.encoder, "vision_model", self.side**2)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size * self.merge**2, 0)
        name = "connector.modality_projection.proj"
        return pooled_states(b, linear(b, c, x, name, self.width, "connector", False))


def open_idefics3(data: Mapping[str, Any], dtype: str, where: str) -> Idefics3Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    kinds = ("idefics3_vision", "smolvlm_vision", "idefics3", "smolvlm", "siglip_vision_model")
    fields = vision_fields(data, where, kinds)
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    size = fields.integer("image_size", 1, MAX_IMAGE_SIZE, 224)
    merge = Fields(data, where).integer("scale_factor", 1, 64, 2)
    fields.refuse_unread(IGNORABLE, {})
    # the last pixels may fill no patch
    side, spare = divmod(size, encoder.patch_size)
    if not side or side % merge:
        what = f"tiles are filled by blocks of scale_factor={merge} patches of {encoder.patch_size} pixels"
        fields.unsupported("image_size", size, what)
    return Idefics3Tower(encoder, side, merge, text_width(data, where), spare=spare)
