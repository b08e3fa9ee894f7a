"""GOT-OCR 2.0: SAM's encoder of square tiles of one size, two convolutions that make one row of 4 x 4 of its patches,
and a linear.

Found by tower.py. The encoder is the stem; the tower's graph is the first convolution, the projector the second and the
linear. Source: Wei et al. 2024, General OCR Theory, arXiv:2409.01704.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.stem import Stem
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, linear
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32, Grid
from albireo.models.vision.sam import KERNEL, SamStem, convolved
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_WIDTH,
    encoder_settings,
    patches_on_side,
    text_width,
    vision_fields,
)
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_TOWER, _PROJECTOR = "vision_tower", "multi_modal_projector"
_KEYS = {"intermediate_size": "mlp_dim"}
_DEFAULTS = sizes(768, 3072, 12, 12, patch_size=16, hidden_act="gelu", layer_norm_eps=1e-6)
#: Patches on a side of what the first convolution behind the encoder makes one; the second does as many again.
STRIDE = 2


@dataclass(slots=True)
class GotOcr2Tower(GivesRowsOnce):
    """Implements tower.VisionTower; its patches are what the stem gives. Fields: sam: the stem. width: of a row."""

    encoder: EncoderSettings
    sam: SamStem
    width: int
    merge: int = STRIDE

    @property
    def stem(self) -> Stem:
        return self.sam

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        return self.sam.made_tensors

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return (self.sam.table,) if self.sam.has_positions else ()

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """Of which others are made."""
        return self.sam.unread_tensors

    def hold(self, tensors: Mapping[str, F32]) -> None:
        self.sam.hold(tensors)

    def patches(self, height: int, width: int) -> int:
        return self.sam.patches(height, width) // STRIDE**2

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width) // STRIDE**2

    def inputs(self, tile: F32) -> TowerInputs:
        """Of what the first convolution sees."""
        side = self.sam.side // STRIDE
        return TowerInputs((tile,), (side, side))

    def graph(self) -> Graph:
        b, c, channels = GraphBuilder(), self.encoder, self.sam.channels
        x = b.given(channels * KERNEL**2, 0)
        return pooled_states(b, linear(b, c, x, f"{_PROJECTOR}.conv_upsampler1", 2 * channels, "first", False))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return convolved(hidden.reshape(*grid, -1), STRIDE)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(2 * self.sam.channels * KERNEL**2, 0)
        x = linear(b, c, x, f"{_PROJECTOR}.conv_upsampler2", self.width, "second", False)
        return pooled_states(b, linear(b, c, x, f"{_PROJECTOR}.multimodal_projector", self.width, "down"))


def open_got_ocr2(data: Mapping[str, Any], dtype: str, where: str) -> GotOcr2Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, (f"{data['model_type']}_vision",), _KEYS)
    stem = open_sam(fields, dtype, _TOWER, 4)
    fields.refuse_unread(IGNORABLE | keys("auto_map mlp_ratio"), {"use_rel_pos": (True,)})
    return GotOcr2Tower(stem.encoder, stem, text_width(data, where, 1024))


def open_sam(fields: Fields, dtype: str, prefix: str, step: int) -> SamStem:
    """What a table says of SAM's encoder. Args: prefix: of its tensors. step: that divides patches on a tile's side.

    Raises: ModelError for a bad value; UnsupportedModel for what is not computed.
    """
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    encoder = replace(encoder, has_qkv_bias=fields.flag("qkv_bias", True))
    side, window = patches_on_side(fields, encoder, 1024, step), fields.integer("window_size", 2, MAX_WIDTH, 14)
    given = fields.raw("global_attn_indexes")
    sees_all = [2, 5, 8, 11] if given is None else given
    if not isinstance(sees_all, list) or not all(type(each) is int for each in sees_all):
        fields.fail("global_attn_indexes", given, "must be a list of numbers of layers")
    layers = frozenset(each for each in sees_all if 0 <= each < encoder.num_layers)
    if not 0 < len(layers) < encoder.num_layers:
        fields.unsupported("global_attn_indexes", given, "some layers must see all, and some windows")
    channels = fields.integer("output_channels", 1, MAX_WIDTH, 256)
    return SamStem(encoder, prefix, side, window, layers, channels, fields.flag("use_abs_pos", True))
