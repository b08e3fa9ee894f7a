"""InternVL 2.5, 3 and 3.5, as transformers has them, and Qianfan-OCR: InternViT of square tiles, and an MLP of blocks
of 2 x 2 patches.

Found by tower.py. What attention and FFN give is multiplied by a vector each (LayerScale). The bias of patches is among
their positions, as the class has none. Source: Chen et al. 2024, InternVL 2.5.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.class_sizes import sizes
from albireo.models.settings.internvl_chat import FIRST_NAMES
from albireo.models.vision.encoder import Names, embedded, layers, mlp, norm
from albireo.models.vision.patches import F32
from albireo.models.vision.positions import checked_table
from albireo.models.vision.settings import (
    IGNORABLE,
    activation,
    encoder_settings,
    feature_layer,
    merged_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.square import ClassTower

_NAMES = Names(
    "layernorm_before",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.projection_layer",
    "layernorm_after",
    "mlp.fc1",
    "mlp.fc2",
    out_gain="lambda_1",
    down_gain="lambda_2",
)
_NORMED = _NAMES._replace(q_norm="attention.q_norm", k_norm="attention.k_norm")
_DEFAULTS = sizes(1024, 4096, 24, 16, patch_size=14, hidden_act="gelu", layer_norm_eps=1e-6)
_EMBEDDINGS = "vision_tower.embeddings"
_CLASS, _TABLE = f"{_EMBEDDINGS}.cls_token", f"{_EMBEDDINGS}.position_embeddings"
_PATCHES = f"{_EMBEDDINGS}.patch_embeddings.projection"
#: Of training.
_OF_TRAINING = keys(
    "dropout projection_dropout drop_path_rate layer_scale_init_value",
    "use_mask_token use_flash_attn",
)
#: Keys of internvl_chat that files of Qianfan-OCR have: what is computed anyway.
_OF_QIANFAN = {"select_layer": -1, "ps_version": "v2", "pad2square": False, "dynamic_image_size": True}
#: Of the projector's norm, as torch has it.
_PROJECTOR_EPS = 1e-5


@dataclass(slots=True)
class InternVLTower(ClassTower):
    """Implements tower.VisionTower.

    Fields: merge: patches on a side of what becomes one row. num_layers: that are computed. has_norm: behind the last
    of all layers. has_qk_norm: of queries and keys. act: of the projector.
    """

    merge: int
    num_layers: int
    has_norm: bool
    has_qk_norm: bool
    act: str

    host_tensors = (_CLASS, _TABLE, f"{_PATCHES}.bias")

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """Also what stands for patches that training hides."""
        layers = range(self.num_layers, self.encoder.num_layers)
        names = f"{_EMBEDDINGS}.mask_token", *(f"vision_tower.encoder.layer.{number}.*" for number in layers)
        return names if self.has_norm else (*names, "vision_tower.layernorm.*")

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width, count = self.encoder.hidden_size, 1 + self.side**2
        flat = {name: tensors[name].reshape(1, -1) for name in self.host_tensors}
        first, table, bias = (
            checked_table(flat, name, 1, rows * width)
            for name, rows in zip(self.host_tensors, (1, count, 1), strict=True)
        )
        table = table.reshape(count, width)
        self.positions = np.concatenate([table[:1] + first, table[1:] + bias])

    def graph(self) -> Graph:
        b, c, names = GraphBuilder(), self.encoder, _NORMED if self.has_qk_norm else _NAMES
        x = embedded(b, c, _PATCHES, False)
        x = layers(b, c, x, "vision_tower.encoder.layer", names, self.num_layers)
        if self.has_norm:
            with b.part("head"):
                x = norm(b, replace(c, is_rms=False), x, "vision_tower.layernorm")
        return pooled_states(b, x)

    def projector(self) -> Graph:
        b, c, name = GraphBuilder(), replace(self.encoder, is_rms=False), "multi_modal_projector"
        x = norm(b, c, b.given(c.hidden_size * self.merge**2, 0), f"{name}.layer_norm", _PROJECTOR_EPS)
        return pooled_states(b, mlp(b, c, x, name, (self.width, self.width), self.act))


def open_internvl(data: Mapping[str, Any], dtype: str, where: str) -> InternVLTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    return _opened(data, dtype, where, ("internvl_vision",), False)


def open_qianfan_ocr(data: Mapping[str, Any], dtype: str, where: str) -> InternVLTower:
    """The same tower, whose queries, keys and values have a bias where nothing is said. Published files have names of
    internvl_chat for its keys. Raises: as open_internvl()."""
    table = Fields(data, where).table("vision_config") or {}
    names = {key: first for first, key in FIRST_NAMES.items() if first in table}
    whole = Fields(data, where)
    for key, only in _OF_QIANFAN.items():
        whole.only(key, only)
    return _opened(data, dtype, where, ("qianfan_ocr_vision", "intern_vit_6b"), True, names)


def _opened(
    data: Mapping[str, Any],
    dtype: str,
    where: str,
    model_types: tuple[str, ...],
    has_bias: bool,
    names: Mapping[str, str] | None = None,
) -> InternVLTower:
    fields, whole = vision_fields(_with_squares(data, where), where, model_types, names), Fields(data, where)
    kind = fields.one_of("norm_type", ("layer_norm", "rms_norm"), "layer_norm")
    encoder = encoder_settings(fields, dtype, _DEFAULTS, is_rms=kind == "rms_norm")
    encoder = replace(encoder, has_qkv_bias=fields.flag("attention_bias", has_bias))
    merge, side = merged_side(whole, "downsample_ratio", fields, encoder, 448)
    has_norm, has_qk_norm = not fields.flag("use_mean_pooling", True), fields.flag("use_qk_norm", False)
    fields.refuse_unread(IGNORABLE | _OF_TRAINING, {"use_absolute_position_embeddings": (True,)})
    strategy = whole.text("vision_feature_select_strategy", "default")
    if strategy != "default":
        whole.unsupported("vision_feature_select_strategy", strategy, "supported: default, patches without the class")
    at = feature_layer(whole, encoder.num_layers, -1)
    # -1 is what the tower gives; a layer, the last one too, is before the norm
    is_last = whole.raw("vision_feature_layer") in (None, -1)
    return InternVLTower(
        encoder,
        side,
        text_width(data, where),
        merge,
        at,
        has_norm and is_last,
        has_qk_norm,
        activation(whole, "projector_hidden_act", "gelu"),
    )


def _with_squares(data: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The same, a height and a width that are equal as one number. Raises: UnsupportedModel where they are not."""
    table = dict(Fields(data, where).table("vision_config") or {})
    for key in ("image_size", "patch_size"):
        given = table.get(key)
        if isinstance(given, list) and given:
            if given != given[:1] * 2:
                Fields(table, f"{where}: vision_config").unsupported(key, given, "supported: squares")
            table[key] = given[0]
    return {**data, "vision_config": table}
