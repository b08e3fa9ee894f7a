"""LLaVA-OneVision: LLaVA-NeXT of a SigLIP, all of its layers, whose rows are resampled where a picture has many more
than nine blocks. A frame of a video is one block, whose rows are resampled to a quarter.

Found by tower.py. What is resampled is what the projector gives, of the blocks alone, before a vector is put behind
each line. A tile of one block is a frame; one that is a pixel wider is the last of its video, behind which that vector
stands, too. Source: Li et al. 2024, LLaVA-OneVision.
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
from albireo.models.vision.patches import F32, Grid, patch_rows
from albireo.models.vision.positions import center_weights, held, resampled
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
from albireo.models.vision.tower_inputs import TowerInputs

#: Pixels that the last frame of a video is wider by.
BEHIND_LAST = 1


def side_of_frames(side: int) -> int:
    """Rows on the side of a frame. Args: side: patches on it."""
    return -(-side // 2)


@dataclass(slots=True)
class LlavaOnevisionTower(LlavaNextTower):
    """Implements tower.VisionTower. Fields: most: blocks whose rows are taken as they are."""

    most: int

    def is_frame(self, height: int, width: int) -> bool:
        return height == self.block and width - self.block in (0, BEHIND_LAST)

    def patches(self, height: int, width: int) -> int:
        return (
            self.of_block if self.is_frame(height, width) else super(LlavaOnevisionTower, self).patches(height, width)
        )

    def inputs(self, tile: F32) -> TowerInputs:
        if not self.is_frame(*tile.shape[:2]):
            return super(LlavaOnevisionTower, self).inputs(tile)
        filled = self.side * self.encoder.patch_size
        patches = patch_rows(tile[:filled, :filled], self.encoder.patch_size)
        return TowerInputs((patches, held(self.positions, "a table of positions")), (tile.shape[0], tile.shape[1]))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden if self.is_frame(*grid) else super(LlavaOnevisionTower, self).joined(hidden, grid)

    def rows(self, height: int, width: int) -> int:
        if self.is_frame(height, width):
            return side_of_frames(self.side) ** 2 + (width > self.block)
        lines, columns = shrunk(Mosaic.of(height, width, self.block).grid(self.side), self.side, self.most)
        return self.side**2 + lines * (columns + 1)

    def placed(self, rows: F32, grid: Grid, size: Grid) -> F32:
        if self.is_frame(*grid):
            of_side = center_weights(side_of_frames(self.side), self.side)
            fewer = resampled(rows, of_side, of_side).reshape(-1, self.width)
            return self.with_newlines(fewer[None]) if grid[1] > self.block else fewer
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
