"""Gemma 3: SigLIP of square tiles of one size, means of blocks of patches, a norm, and one linear.

Found by tower.py. Source: Gemma Team 2025, Gemma 3 Technical Report.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.vision.patches import F32, Grid, blocks
from albireo.models.vision.settings import IGNORABLE, MAX_IMAGE_SIZE, encoder_settings, text_width, vision_fields
from albireo.models.vision.siglip import DEFAULTS, siglip
from albireo.models.vision.square import SquareTower

_PROJECTOR = "multi_modal_projector"


class Gemma3Tower(SquareTower):
    """Implements tower.VisionTower."""

    __slots__ = ()

    def graph(self) -> Graph:
        return siglip(self.encoder, "vision_tower", self.side**2)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        means: F32 = blocks(hidden, grid, self.merge).mean(axis=(2, 3), dtype=np.float32)
        return means.reshape(-1, hidden.shape[1])

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("norm"):
            weight = b.weight(f"{_PROJECTOR}.mm_soft_emb_norm.weight", (c.hidden_size,), "float32", plus=1.0)
            x = b.rms_norm(b.given(c.hidden_size, 0), weight, c.eps)
        with b.part("down"):
            # tensors.py gives it as a linear's, of which it is the transpose in files
            weight = b.weight(f"{_PROJECTOR}.mm_input_projection_weight", (self.width, c.hidden_size), c.dtype)
            return pooled_states(b, b.linear(b.cast(x, c.dtype), weight))


def open_gemma3(data: Mapping[str, Any], dtype: str, where: str) -> Gemma3Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("siglip_vision_model",))
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    size = fields.integer("image_size", 1, MAX_IMAGE_SIZE, 224)
    # a head would pool patches, and is not asked for rows
    fields.refuse_unread(IGNORABLE | keys("vision_use_head"), {})
    count = Fields(data, where).integer("mm_tokens_per_image", 1, 2**20, 256)
    side, tokens = size // encoder.patch_size, int(count**0.5)
    if size % encoder.patch_size or tokens**2 != count or side % tokens:
        what = (
            f"tiles are filled by mm_tokens_per_image={count} square blocks of patches of {encoder.patch_size} pixels"
        )
        fields.unsupported("image_size", size, what)
    return Gemma3Tower(encoder, side, side // tokens, text_width(data, where, 2304))
