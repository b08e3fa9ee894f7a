"""Qwen2-VL, Qwen2.5-VL, EXAONE 4.5, HyperCLOVA X Vision and OpenCUA: patches of any grid rotated by row and column,
and a merger of blocks of 2 x 2.

Found by tower.py. Patches are in the order of blocks, so that what becomes one row lies side by side. A tile is two
frames, of a picture two that are alike; patches see none of other tiles. In most layers of Qwen2.5-VL they see those of
their window alone: blocks are then in the order of windows, each a sequence of a second layer of the KV cache, and back
in reading order before the merger.
Sources: Wang et al. 2024, Qwen2-VL; Bai et al. 2025, Qwen2.5-VL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.blocks.rope import base_frequencies
from albireo.models.vision.encoder import IN_ONE, EncoderSettings, Names, layer, linear, mlp, norm
from albireo.models.vision.patches import F32, Grid, Sequences, grid_of, in_blocks, patches_in_time
from albireo.models.vision.positions import axial_theta, places, rotations
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    check_quarters,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import HoldsNothing, InBlocks, TowerInputs

_GATED = IN_ONE._replace(up="mlp.up_proj", down="mlp.down_proj", gate="mlp.gate_proj")
#: Of Qwen2.5-Omni, which has queries, keys and values apart.
_APART = _GATED._replace(joined=None)
_KEYS = {"num_channels": "in_channels", "num_hidden_layers": "depth", "num_attention_heads": "num_heads"}
_DEFAULTS = {"num_hidden_layers": 32, "num_attention_heads": 16, "patch_size": 14}
_DEFAULTS_2_5 = {**_DEFAULTS, "hidden_size": 3584, "intermediate_size": 3420, "hidden_act": "silu"}
#: What nothing is computed from: steps of time, of videos, and keys of the first files.
_OF_OTHERS = keys("tokens_per_second spatial_patch_size init_std embed_dim")


@dataclass(frozen=True, slots=True)
class Qwen2VLTower(InBlocks, HoldsNothing):
    """Implements tower.VisionTower. Fields: frames: that a patch has. merge: patches on a side of what becomes one row.
    theta: base of frequencies. window: blocks on a side; 0: no layer has windows. whole: layers without. module: that
    all is in. widened: channels of what a linear makes of rows, behind all; 0: there is none."""

    encoder: EncoderSettings
    names: Names
    frames: int
    merge: int
    theta: float
    width: int
    window: int = 0
    whole: tuple[int, ...] = ()
    module: str = "visual"
    widened: int = 0

    def sequences(self, height: int, width: int) -> Sequences:
        """Of layers without windows, then of those with."""
        if not self.window:
            return ()
        num_patches = self.patches(height, width)
        _, counts = self._windows(grid_of(height, width, self.encoder.patch_size))
        windows = tuple(int(count) * self.merge**2 for count in counts)
        return ((num_patches,), windows) if self.whole else (windows,)

    def most_sequences(self, patches: int) -> int:
        """Windows of a line of blocks."""
        return -(-patches // self.merge**2 // self.window) if self.window else 1

    def inputs(self, tile: F32) -> TowerInputs:
        c, (height, width, _) = self.encoder, tile.shape
        num_patches, grid = self.patches(height, width), grid_of(height, width, c.patch_size)
        of_axis = base_frequencies(self.theta, c.head_dim // 2)
        made = patches_in_time(tile, c.patch_size, self.frames), rotations(places(grid), of_axis, of_axis)
        patches, turns = (in_blocks(rows, grid, self.merge) for rows in made)
        if not self.window:
            return TowerInputs((patches,), grid, turns)
        order, _ = self._windows(grid)
        patches, turns = (self._of_blocks(rows)[order].reshape(num_patches, -1) for rows in (patches, turns))
        return TowerInputs((patches,), grid, turns)

    def _windows(self, grid: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Blocks in the order of windows, and how many each window has."""
        rows, columns = (each.ravel() for each in np.indices((grid[0] // self.merge, grid[1] // self.merge)))
        window = rows // self.window * len(columns) + columns // self.window
        # blocks of one window stay in reading order
        return np.argsort(window, kind="stable"), np.unique(window, return_counts=True)[1]

    def _of_blocks(self, rows: F32) -> F32:
        """[blocks, any] of rows [T, any]."""
        return rows.reshape(len(rows) // self.merge**2, -1)

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            patches = b.given(c.patch_width * self.frames, 0)
            x = linear(b, c, patches, f"{self.module}.patch_embed.proj", c.hidden_size, "patches", False)
        for number in range(c.num_layers):
            kv_layer = int(bool(self.window and self.whole) and number not in self.whole)
            x = layer(b, c, x, number, f"{self.module}.blocks", self.names, kv_layer)
        with b.part("head"):
            x = norm(b, c, x, f"{self.module}.merger.ln_q")
        return pooled_states(b, x)

    def joined(self, hidden: F32, grid: Grid) -> F32:
        rows = self._of_blocks(hidden)
        return rows[np.argsort(self._windows(grid)[0])] if self.window else rows

    def projector(self) -> Graph:
        b, c, name = GraphBuilder(), self.encoder, f"{self.module}.merger.mlp"
        width = c.hidden_size * self.merge**2
        rows = mlp(b, c, b.given(width, 0), name, (width, self.width), "gelu", parts=("0", "2"))
        if self.widened:
            rows = linear(b, c, rows, "vision_projector", self.widened, "widened")
        return pooled_states(b, rows)


def open_qwen2_vl(data: Mapping[str, Any], dtype: str, where: str) -> Qwen2VLTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    # hidden_size is that of rows, layers have another one
    fields = vision_fields(data, where, ("qwen2_vl_vision", "qwen2_vl"), {**_KEYS, "hidden_size": "embed_dim"})
    embed_dim = fields.integer("hidden_size", 1, MAX_WIDTH, 1280)
    wider = embed_dim * fields.integer("mlp_ratio", 1, 16, 4)
    defaults = {**_DEFAULTS, "hidden_size": 1280, "intermediate_size": wider, "hidden_act": "quick_gelu"}
    encoder = encoder_settings(fields, dtype, defaults, eps=1e-6)
    if encoder.intermediate_size != wider:
        what = f"layers are mlp_ratio times embed_dim wide, here {wider}"
        fields.unsupported("intermediate_size", encoder.intermediate_size, what)
    of_rows = Fields(data["vision_config"], fields.where), "hidden_size"
    return _tower(fields, encoder, IN_ONE, data, where, of_rows)


def open_qwen2_5_vl(data: Mapping[str, Any], dtype: str, where: str) -> Qwen2VLTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    is_omni = data["model_type"] == "qwen2_5_omni"
    kinds = ("qwen2_5_omni_vision_encoder",) if is_omni else ("qwen2_5_vl_vision", "qwen2_5_vl")
    fields = vision_fields(data, where, kinds, _KEYS)
    return _with_windows(fields, encoder_settings(fields, dtype, _DEFAULTS_2_5, eps=1e-6, is_rms=True), data, where)


def open_exaone4_5(data: Mapping[str, Any], dtype: str, where: str) -> Qwen2VLTower:
    """That of Qwen2.5-VL, whose heads of queries share those of keys and values. Raises: as open_qwen2_5_vl()."""
    fields = vision_fields(data, where, ("exaone4_5_vision",), _KEYS)
    encoder = encoder_settings(fields, dtype, _DEFAULTS_2_5, eps=1e-6, is_rms=True)
    shared = fields.integer("num_key_value_heads", 1, encoder.num_heads, 8)
    if encoder.num_heads % shared:
        fields.fail("num_key_value_heads", shared, f"must divide num_heads={encoder.num_heads}")
    return _with_windows(fields, replace(encoder, num_kv_heads=shared), data, where)


def open_hyperclovax(data: Mapping[str, Any], dtype: str, where: str) -> Qwen2VLTower:
    """That of Qwen2.5-VL, of any width, and a linear behind it. Raises: as open_qwen2_5_vl()."""
    fields = vision_fields(data, where, ("qwen2_5_vl_vision", "qwen2_5_vl"), _KEYS)
    encoder = encoder_settings(fields, dtype, _DEFAULTS_2_5, eps=1e-6, is_rms=True)
    return replace(_with_windows(fields, encoder, data, where), module="vision_model", widened=text_width(data, where))


def open_opencua(data: Mapping[str, Any], dtype: str, where: str) -> Qwen2VLTower:
    """That of Qwen2.5-VL under another name. Raises: as open_qwen2_5_vl()."""
    return replace(open_qwen2_5_vl(data, dtype, where), module="vision_tower")


def _with_windows(fields: Fields, encoder: EncoderSettings, data: Mapping[str, Any], where: str) -> Qwen2VLTower:
    size, whole = fields.integer("window_size", 1, MAX_IMAGE_SIZE, 112), _whole_layers(fields)
    has_windows = any(number not in whole for number in range(encoder.num_layers))
    names = _APART if data["model_type"] == "qwen2_5_omni" else _GATED
    tower = _tower(fields, encoder, names, data, where, (fields, "out_hidden_size"))
    window = size // tower.merge // encoder.patch_size
    if not window:
        fields.fail("window_size", size, f"must be at least {tower.merge} patches of {encoder.patch_size} pixels")
    of_tower = tuple(number for number in whole if number < encoder.num_layers)
    return replace(tower, window=window if has_windows else 0, whole=of_tower)


def _whole_layers(fields: Fields) -> tuple[int, ...]:
    """Layers whose patches see all others."""
    name = "fullatt_block_indexes"
    given = fields.raw(name)
    given = [7, 15, 23, 31] if given is None else given
    if not isinstance(given, list) or not all(type(each) is int and each >= 0 for each in given):
        fields.fail(name, given, "must be a list of numbers of layers")
    return tuple(sorted(set(given)))


def _tower(
    fields: Fields,
    encoder: EncoderSettings,
    names: Names,
    data: Mapping[str, Any],
    where: str,
    of_rows: tuple[Fields, str],
) -> Qwen2VLTower:
    """What both read alike. Args: of_rows: where the width of rows is said, and by which key."""
    at, key = of_rows
    width = at.integer(key, 1, MAX_WIDTH, 3584)
    frames = fields.integer("temporal_patch_size", 1, 16, 2)
    merge = fields.integer("spatial_merge_size", 1, 16, 2)
    check_quarters(fields, encoder)
    theta, of_text = axial_theta(fields), text_width(data, where)
    fields.refuse_unread(IGNORABLE | _OF_OTHERS | {key}, {"in_chans": (3,)})
    if width != of_text and data["model_type"] != "hyperclovax_vision_v2":
        at.fail(key, width, f"must be the text part's hidden_size={of_text}")
    return Qwen2VLTower(encoder, names, frames, merge, theta, width)
