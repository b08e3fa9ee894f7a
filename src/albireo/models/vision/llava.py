"""LLaVA 1.5 and its kin: CLIP of square tiles, all but its last layers, and two linears. Of ViP-LLaVA several layers
give states side by side, of which the projector first takes a norm.

Found by tower.py. Sources: Liu et al. 2023, Improved Baselines with Visual Instruction Tuning; Radford et al. 2021,
CLIP; Cai et al. 2023, ViP-LLaVA, arXiv:2312.00784.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, embedded, layer, mlp, norm
from albireo.models.vision.mistral3 import Mistral3Tower, open_pixtral
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.positions import checked_table
from albireo.models.vision.settings import (
    IGNORABLE,
    activation,
    encoder_settings,
    feature_layer,
    feature_layers,
    patches_on_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import NAMES
from albireo.models.vision.square import ClassTower

#: Of CLIP: what absent keys mean, and keys of text beside it, and of what pairs them.
CLIP = sizes(768, 3072, 12, 12, patch_size=32, hidden_act="quick_gelu", layer_norm_eps=1e-5)
CLIP_KEYS = keys("vocab_size projection_dim logit_scale_init_value")
#: Of ViP-LLaVA, where files do not say.
_VIP_LAYERS = [-2, -5, -8, -11, 6]
_CLASS, _TABLE = "vision_tower.embeddings.class_embedding", "vision_tower.embeddings.position_embedding.weight"


@dataclass(slots=True)
class LlavaTower(ClassTower):
    """Implements tower.VisionTower.

    Fields: layers: behind which states are taken. has_class: its row is given, too. act, has_bias: of the projector;
    eps: of its norm, where it has one.
    """

    layers: tuple[int, ...]
    has_class: bool
    act: str
    has_bias: bool
    eps: float | None = None
    merge: int = 1

    host_tensors = (_CLASS, _TABLE)

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        layers = range(max(self.layers), self.encoder.num_layers)
        return "vision_tower.post_layernorm.*", *(f"vision_tower.encoder.layers.{number}.*" for number in layers)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        table = checked_table(tensors, _TABLE, 1 + self.side**2, self.encoder.hidden_size)
        first = checked_table({_CLASS: tensors[_CLASS].reshape(1, -1)}, _CLASS, 1, self.encoder.hidden_size)
        self.positions = np.concatenate([table[:1] + first, table[1:]])

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) - (not self.has_class)

    def graph(self) -> Graph:
        b, c, prefix = GraphBuilder(), self.encoder, "vision_tower"
        x = embedded(b, c, f"{prefix}.embeddings.patch_embedding", False)
        with b.part("embed"):
            x = norm(b, c, x, f"{prefix}.pre_layrnorm")
        states = {}
        for number in range(max(self.layers)):
            x = states[number + 1] = layer(b, c, x, number, f"{prefix}.encoder.layers", NAMES)
        return pooled_states(b, side_by_side(b, states, self.layers))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden if self.has_class else hidden[1:]

    def projector(self) -> Graph:
        b, c, name = GraphBuilder(), self.encoder, "multi_modal_projector"
        x = b.given(c.hidden_size * len(self.layers), 0)
        if self.eps is not None:
            x = norm(b, c, x, f"{name}.projector_layernorm", self.eps)
        return pooled_states(b, mlp(b, c, x, name, (self.width, self.width), self.act, self.has_bias))


def side_by_side(b: GraphBuilder, states: Mapping[int, Value], layers: tuple[int, ...]) -> Value:
    """[T, n E] of the states behind n layers."""
    first, *others = layers
    x = states[first]
    with b.part("head"):
        for number in others:
            x = b.join_heads(x, states[number], 1)
    return x


def is_pixtral(data: Mapping[str, Any]) -> bool:
    """Whether the tower of a LLaVA is that of Pixtral 12B."""
    tower = data.get("vision_config")
    return isinstance(tower, Mapping) and tower.get("model_type") == "pixtral"


def open_llava(data: Mapping[str, Any], dtype: str, where: str) -> LlavaTower | Mistral3Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    if is_pixtral(data):
        return open_pixtral(data, dtype, where)
    whole = Fields(data, where)
    strategy = whole.one_of("vision_feature_select_strategy", ("default", "full"), "default")
    encoder, side = _clip(data, dtype, where)
    return LlavaTower(
        encoder,
        side,
        text_width(data, where, 4096),
        (feature_layer(whole, encoder.num_layers, -2),),
        strategy == "full",
        activation(whole, "projector_hidden_act", "gelu"),
        whole.flag("multimodal_projector_bias", True),
    )


def open_vipllava(data: Mapping[str, Any], dtype: str, where: str) -> LlavaTower:
    """Raises: as open_llava()."""
    key = "vision_feature_layer"
    # files with LLaVA's other keys have this one, too, where it never said anything
    says_nothing = data.get(key) is None or data.get("vision_feature_select_strategy") is not None
    whole = Fields(data, where, {key: f"{key}s"} if says_nothing else {})
    encoder, side = _clip(data, dtype, where)
    return LlavaTower(
        encoder,
        side,
        text_width(data, where, 4096),
        feature_layers(whole, encoder.num_layers, _VIP_LAYERS),
        False,
        activation(whole, "projector_hidden_act", "gelu"),
        True,
        whole.number("projector_layernorm_eps", 1e-30, 1.0, 1e-5),
    )


def _clip(data: Mapping[str, Any], dtype: str, where: str) -> tuple[EncoderSettings, int]:
    """And how many patches are on a tile's side."""
    fields = vision_fields(data, where, ("clip_vision_model",))
    encoder = encoder_settings(fields, dtype, CLIP)
    side = patches_on_side(fields, encoder, 224)
    fields.refuse_unread(IGNORABLE | CLIP_KEYS, {})
    return encoder, side
