"""PaddleOCR-VL and Keye-VL: SigLIP of tiles of any grid, whose learned positions are resampled and which is rotated by
row and column, too; blocks of 2 x 2 patches side by side, and a projector.

Found by tower.py. Of Keye-VL 1.5 the projector's norm is of a block, of the others of each patch. Sources: Cui et al.
2025, PaddleOCR-VL, arXiv:2510.14528; Kwai Keye Team 2025, Keye-VL, arXiv:2507.01949.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, mlp, norm
from albireo.models.vision.patches import F32, grid_of, patch_rows
from albireo.models.vision.positions import (
    axial_theta,
    center_weights,
    checked_table,
    held,
    places,
    resampled,
    rotations,
)
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    check_quarters,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, siglip
from albireo.models.vision.tower_inputs import GivesRowsOnce, InBlocks, TowerInputs

_DEFAULTS = DEFAULTS | sizes(1152, 4304, 27, 16, patch_size=14)
_VISION = "visual.vision_model"
_TABLE = f"{_VISION}.embeddings.position_embedding.weight"
#: Which files do not say.
_PROJECTOR_EPS = 1e-5
_PROJECTOR_NORM = "projector.pre_norm"
#: What nothing is computed from: of videos, and code that is never run.
_OF_OTHERS = keys("temporal_patch_size tokens_per_second auto_map")


@dataclass(slots=True)
class PaddleOcrVlTower(InBlocks, GivesRowsOnce):
    """Implements tower.VisionTower. Fields: side: of the table of positions. merge: patches on a side of what becomes
    one row. theta: base of frequencies. width: of a row. norms_blocks: the projector's norm is of what becomes a row.
    table: [side * side, E] positions, once held."""

    encoder: EncoderSettings
    side: int
    merge: int
    theta: float
    width: int
    norms_blocks: bool = False
    table: F32 | None = field(default=None, kw_only=True)

    host_tensors = (_TABLE,)
    #: Of positions of patches in a row, and of a head that pools them.
    unread_tensors = (f"{_VISION}.embeddings.packing_position_embedding.*", f"{_VISION}.head.*")

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.table = checked_table(tensors, _TABLE, self.side**2, self.encoder.hidden_size)

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid, of_axis = grid_of(height, width, c.patch_size), base_frequencies(self.theta, c.head_dim // 2)
        positions = resampled(held(self.table, _TABLE), *(center_weights(count, self.side) for count in grid))
        patches = patch_rows(tile, c.patch_size)
        turns = rotations(places(grid), of_axis, of_axis)
        return TowerInputs((patches, positions.reshape(len(patches), -1)), grid, turns)

    def graph(self) -> Graph:
        return siglip(self.encoder, _VISION, None, None if self.norms_blocks else (_PROJECTOR_NORM, _PROJECTOR_EPS))

    def projector(self) -> Graph:
        b, c, inner = GraphBuilder(), self.encoder, self.encoder.hidden_size * self.merge**2
        x = b.given(inner, 0)
        if self.norms_blocks:
            x = norm(b, c, x, _PROJECTOR_NORM, _PROJECTOR_EPS)
        return pooled_states(b, mlp(b, c, x, "projector", (inner, self.width), "gelu"))


def open_paddleocr_vl(data: Mapping[str, Any], dtype: str, where: str) -> PaddleOcrVlTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    return _opened(data, dtype, where, ("paddleocr_vl_vision", "paddleocr_vl"), 1024)


def open_keye(data: Mapping[str, Any], dtype: str, where: str) -> PaddleOcrVlTower:
    """Raises: as open_paddleocr_vl()."""
    found = _opened(data, dtype, where, (str(data["model_type"]), "siglip_vision_model"))
    return replace(found, norms_blocks=data["model_type"] == "KeyeVL1_5")


def _opened(
    data: Mapping[str, Any], dtype: str, where: str, model_types: tuple[str, ...], default_width: int | None = None
) -> PaddleOcrVlTower:
    fields = vision_fields(data, where, model_types)
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    size = fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 384)
    merge = fields.integer("spatial_merge_size", 1, 16, 2)
    check_quarters(fields, encoder)
    theta, width = axial_theta(fields), text_width(data, where, default_width)
    fields.refuse_unread(IGNORABLE | _OF_OTHERS, {})
    return PaddleOcrVlTower(encoder, size // encoder.patch_size, merge, theta, width)
