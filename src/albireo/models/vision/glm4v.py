"""GLM-4.1V, 4.5V, 4.6V and GLM-OCR: patches of any grid rotated by row and column, and blocks of 2 x 2 made one by a
convolution, behind which is a gated FFN.

Found by tower.py. Patches are in the order of blocks, so that what becomes one row lies side by side. A tile is two
frames, of a picture two that are alike. GLM-4V adds learned positions, resampled to the grid; GLM-OCR has none, and
norms of each head of queries and keys.
Sources: Hong et al. 2025, GLM-4.1V-Thinking and GLM-4.5V, arXiv:2507.01006; GLM-OCR as transformers computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import IN_ONE, EncoderSettings, Names, layers, linear, mlp, norm
from albireo.models.vision.patches import F32, Grid, grid_of, in_blocks, patches_in_time
from albireo.models.vision.positions import (
    axial_theta,
    checked_table,
    cubic_weights,
    held,
    places,
    resampled,
    rotations,
)
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    check_quarters,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import GivesRowsOnce, InBlocks, TowerInputs

_NAMES = IN_ONE._replace(up="mlp.up_proj", down="mlp.down_proj", gate="mlp.gate_proj")
_WITH_HEAD_NORMS = _NAMES._replace(q_norm="attn.q_norm", k_norm="attn.k_norm")
_KEYS = {
    "num_channels": "in_channels",
    "num_hidden_layers": "depth",
    "num_attention_heads": "num_heads",
    "layer_norm_eps": "rms_norm_eps",
}
_DEFAULTS = sizes(1536, 13696, 24, 12, patch_size=14, hidden_act="silu", layer_norm_eps=1e-5)
_DEFAULTS_OCR = {**_DEFAULTS, "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
_TABLE = "visual.embeddings.position_embedding.weight"
#: Of the one LayerNorm, which files do not say.
_MERGER_EPS = 1e-5


@dataclass(slots=True)
class Glm4vTower(InBlocks, GivesRowsOnce):
    """Implements tower.VisionTower. Fields: side: of the table of positions; 0: there is none. frames: that a patch
    has. merge: patches on a side of what becomes one row. theta: base of frequencies. width: of a row. inner: of the
    FFN behind the convolution. table: [side * side, E] positions, once held."""

    encoder: EncoderSettings
    names: Names
    side: int
    frames: int
    merge: int
    theta: float
    width: int
    inner: int
    table: F32 | None = field(default=None, kw_only=True)

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return (_TABLE,) if self.side else ()

    def hold(self, tensors: Mapping[str, F32]) -> None:
        if self.side:
            self.table = checked_table(tensors, _TABLE, self.side**2, self.encoder.hidden_size)

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        self.patches(height, width)
        grid, of_axis = grid_of(height, width, c.patch_size), base_frequencies(self.theta, c.head_dim // 2)
        turns = in_blocks(rotations(places(grid), of_axis, of_axis), grid, self.merge)
        given = [patches_in_time(tile, c.patch_size, self.frames)]
        if self.side:
            given.append(resampled(held(self.table, _TABLE), *(cubic_weights(count, self.side) for count in grid)))
        return TowerInputs(tuple(in_blocks(rows, grid, self.merge) for rows in given), grid, turns)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            patches = b.given(c.patch_width * self.frames, 0)
            x = linear(b, c, patches, "visual.patch_embed.proj", c.hidden_size, "patches")
            if self.side:
                x = norm(b, c, x, "visual.post_conv_layernorm")
                with b.part("positions"):
                    x = b.add(x, b.given(c.hidden_size, 1))
        x = layers(b, c, x, "visual.blocks", self.names)
        with b.part("head"):
            x = norm(b, c, x, "visual.post_layernorm")
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        """Of each block, number by number what its patches have of it, as the convolution's weight is flattened."""
        blocks = hidden.reshape(len(hidden) // self.merge**2, self.merge**2, -1)
        return np.ascontiguousarray(blocks.transpose(0, 2, 1)).reshape(len(blocks), -1)

    def projector(self) -> Graph:
        b, c, name = GraphBuilder(), self.encoder, "visual.merger"
        x = b.given(c.hidden_size * self.merge**2, 0)
        x = linear(b, c, x, "visual.downsample", self.width, "downsample")
        x = linear(b, c, x, f"{name}.proj", self.width, "proj", False)
        x = norm(b, replace(c, is_rms=False), x, f"{name}.post_projection_norm", _MERGER_EPS)
        with b.part("behind"):
            x = b.cast(b.unary(x, "gelu"), c.dtype)
        widths, parts = (self.inner, self.width), ("up_proj", "down_proj")
        return pooled_states(b, mlp(b, c, x, name, widths, c.act, False, parts, "gate_proj"))


def open_glm4v(data: Mapping[str, Any], dtype: str, where: str) -> Glm4vTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    # of 4.6V they are those of 4.1V
    kind = "glm4v" if data["model_type"] == "glm46v" else data["model_type"]
    fields = vision_fields(data, where, (f"{kind}_vision", kind), _KEYS)
    width = _width(fields, data, where, 4096)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, is_rms=True, has_bias=False)
    size = fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 336)
    # its key is that of the FFN behind the convolution; those of layers are as wide as rows
    inner, encoder = encoder.intermediate_size, replace(encoder, intermediate_size=width)
    return _tower(fields, encoder, _NAMES, size // encoder.patch_size, width, inner)


def open_glm_ocr(data: Mapping[str, Any], dtype: str, where: str) -> Glm4vTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("glm_ocr_vision", "glm_ocr"), _KEYS)
    width, has_bias = _width(fields, data, where, 1536), fields.flag("attention_bias", True)
    encoder = encoder_settings(fields, dtype, _DEFAULTS_OCR, is_rms=True, has_bias=has_bias)
    # positions are not added, whatever size they would be of
    fields.optional_integer("image_size", 1, MAX_IMAGE_SIZE)
    inner = width * fields.integer("num_channels", 3, 3, 3)
    return _tower(fields, replace(encoder, norms_heads=True), _WITH_HEAD_NORMS, 0, width, inner)


def _width(fields: Fields, data: Mapping[str, Any], where: str, default: int) -> int:
    """Of rows, which the text part reads."""
    width, of_text = fields.integer("out_hidden_size", 1, MAX_WIDTH, default), text_width(data, where)
    if width != of_text:
        fields.fail("out_hidden_size", width, f"must be the text part's hidden_size={of_text}")
    return width


def _tower(fields: Fields, encoder: EncoderSettings, names: Names, side: int, width: int, inner: int) -> Glm4vTower:
    """What both read alike."""
    frames = fields.integer("temporal_patch_size", 1, 16, 2)
    merge = fields.integer("spatial_merge_size", 1, 16, 2)
    check_quarters(fields, encoder)
    theta = axial_theta(fields)
    fields.refuse_unread(IGNORABLE, {"attention_bias": (False,)})
    return Glm4vTower(encoder, names, side, frames, merge, theta, width, inner)
