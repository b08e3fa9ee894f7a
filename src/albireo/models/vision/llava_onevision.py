"""LLaVA-OneVision: LLaVA-NeXT of a SigLIP, all of its layers, whose rows are resampled where a picture has many more
than nine blocks.

Found by tower.py. What is resampled is what the projector gives, of the blocks alone, before a vector is put behind
each line. Source: Li et al. 2024, LLaVA-OneVision.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.json_file import Fields, keys
from albireo.models.vision.llava_next import LlavaNextTower
from albireo.models.vision.mosaic import Mosaic, shrunk
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.positions import center_weights, resampled
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    activation,
    encoder_settings,
    feature_layers,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS


@dataclass(slots=True)
class LlavaOnevisionTower(LlavaNextTower):
    """Implements tower.VisionTower. Fields: most: blocks whose rows are taken as they are."""

    most: int

    def rows(self, height: int, width: int) -> int:
        lines, columns = shrunk(Mosaic.of(height, width, self.block).grid(self.side), self.side, self.most)
        return self.side**2 + lines * (columns + 1)

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        patches = Mosaic.of(*grid, self.block).grid(self.side)
        wanted, whole = shrunk(patches, self.side, self.most), rows[: self.side**2]
        lines = rows[self.side**2 :].reshape(*patches, self.width)
        if wanted != patches:
            weights = (center_weights(count, given) for count, given in zip(wanted, patches, strict=True))
            lines = resampled(lines.reshape(-1, self.width), *weights)
        return np.concatenate([whole, self.with_newlines(lines)])


def open_llava_onevision(data: Mapping[str, Any], dtype: str, where: str) -> LlavaOnevisionTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = vision_fields(data, where, ("siglip_vision_model",)), Fields(data, where)
    encoder = encoder_settings(fields, dtype, DEFAULTS)
    size = fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 224)
    # a head would pool patches, and is not asked for rows
    fields.refuse_unread(IGNORABLE | keys("vision_use_head"), {})
    strategy = whole.text("vision_feature_select_strategy", "full")
    if strategy != "full":
        whole.unsupported("vision_feature_select_strategy", strategy, "supported: full, all patches")
    return LlavaOnevisionTower(
        encoder,
        size,
        False,
        feature_layers(whole, encoder.num_layers, -1),
        text_width(data, where, 4096),
        activation(whole, "projector_hidden_act", "gelu"),
        whole.flag("multimodal_projector_bias", True),
        most_blocks(whole),
    )


def most_blocks(fields: Fields) -> int:
    """Of vision_aspect_ratio. Raises: UnsupportedModel where it does not say a number."""
    said = fields.text("vision_aspect_ratio", "anyres_max_9")
    found = re.fullmatch(r"anyres_max_([1-9]\d{0,3})", said)
    if found is None:
        fields.unsupported("vision_aspect_ratio", said, "supported: anyres_max_ and a number of blocks")
    return int(found[1])
