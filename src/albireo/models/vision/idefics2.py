"""Idefics 2: SigLIP of tiles of any grid, over which learned positions are stretched, an FFN that makes patches as wide
as the text part, and a Perceiver, of which as many rows are left of any tile.

Found by tower.py. All but the last layer of the Perceiver is the tower's stem. Source: Laurençon et al. 2024, What
matters when building vision-language models.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from albireo.errors import InvariantError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.layers import pooled_states
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.text_part import text_keys
from albireo.models.vision.encoder import EncoderSettings, embedded, layers, norm, rounded_norm
from albireo.models.vision.patches import F32, Grid, patch_rows
from albireo.models.vision.perceiver import Perceiver, PerceiverStem, gated, halves
from albireo.models.vision.positions import checked_table, stretched
from albireo.models.vision.settings import (
    IGNORABLE,
    MAX_HEADS,
    MAX_IMAGE_SIZE,
    MAX_WIDTH,
    activation,
    encoder_settings,
    text_width,
    vision_fields,
)
from albireo.models.vision.siglip import DEFAULTS, NAMES
from albireo.models.vision.tower_inputs import GivesRowsOnce, TowerInputs

_TOWER, _CONNECTOR = "vision_model", "connector.modality_projection"
_RESAMPLER = "connector.perceiver_resampler"
_TABLE = f"{_TOWER}.embeddings.position_embedding.weight"
_EMBEDDING = f"{_TOWER}.embeddings.patch_embedding"


@dataclass(slots=True)
class Idefics2Tower(GivesRowsOnce):
    """Implements tower.VisionTower. Its patches are the rows that ask.

    Fields: side: of the table of positions [side * side, E], once held, and patches on that of the largest tile.
    connector: of the FFN behind layers.
    """

    encoder: EncoderSettings
    side: int
    connector: EncoderSettings
    perceiver: Perceiver
    held: dict[str, F32] = field(default_factory=dict)

    @property
    def dtype(self) -> str:
        return self.encoder.dtype

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return _TABLE, self.perceiver.latents

    def hold(self, tensors: Mapping[str, F32]) -> None:
        p, width = self.perceiver, self.encoder.hidden_size
        self.held[_TABLE] = checked_table(tensors, _TABLE, self.side**2, width)
        self.held[p.latents] = checked_table(tensors, p.latents, p.count, p.settings.hidden_size)

    def most_rows(self, patches: int) -> int:
        return patches

    def patches(self, height: int, width: int) -> int:
        self._grid(height, width)
        return self.perceiver.count

    def rows(self, height: int, width: int) -> int:
        return self.patches(height, width)

    def _grid(self, height: int, width: int) -> Grid:
        """Lines and columns of patches, which leave the last pixels of a tile out."""
        grid = height // self.encoder.patch_size, width // self.encoder.patch_size
        if not 1 <= min(grid) <= max(grid) <= self.side:
            raise InvariantError(
                f"a tile of {height} x {width} pixels; this tower reads 1 to {self.side} patches of "
                f"{self.encoder.patch_size} in either direction"
            )
        return grid

    @property
    def stem(self) -> PerceiverStem:
        latents = self.held.get(self.perceiver.latents)
        return PerceiverStem(self.perceiver, self._context, self._cut, self.side**2, latents)

    def _cut(self, tile: F32) -> tuple[F32, ...]:
        if _TABLE not in self.held:
            raise InvariantError(f"{_TABLE} is read before it is held")
        patch, grid = self.encoder.patch_size, self._grid(*tile.shape[:2])
        rows, columns = (stretched(count, count, self.side) for count in grid)
        places = rows[:, None] * self.side + columns
        return patch_rows(tile[: grid[0] * patch, : grid[1] * patch], patch), self.held[_TABLE][places.reshape(-1)]

    def _context(self, b: GraphBuilder) -> Value:
        c = self.encoder
        x = embedded(b, c, _EMBEDDING)
        x = layers(b, c, x, f"{_TOWER}.encoder.layers", NAMES)
        with b.part("head"):
            h = rounded_norm(b, c, x, f"{_TOWER}.post_layernorm")
            return gated(b, self.connector, h, _CONNECTOR, self.perceiver.settings.hidden_size)

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs(halves(tile, self.perceiver.settings.hidden_size), (len(tile), 1))

    def graph(self) -> Graph:
        p, b = self.perceiver, GraphBuilder()
        x, a = b.given(p.settings.hidden_size, 0), b.given(p.of_queries, 1)
        return pooled_states(b, p.answered(b, x, a, p.settings.num_layers - 1))

    def joined(self, hidden: F32, grid: Grid) -> F32:
        return hidden

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.perceiver.settings
        return pooled_states(b, norm(b, c, b.given(c.hidden_size, 0), f"{_RESAMPLER}.norm"))


def open_idefics2(data: Mapping[str, Any], dtype: str, where: str) -> Idefics2Tower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = vision_fields(data, where, ("idefics2_vision", "idefics2"))
    encoder = encoder_settings(fields, dtype, {**DEFAULTS, "patch_size": 32})
    size = fields.integer("image_size", encoder.patch_size, MAX_IMAGE_SIZE, 224)
    fields.refuse_unread(IGNORABLE, {})
    width = text_width(data, where, 4096)
    text = Fields(text_keys(data, where), f"{where}: text_config")
    rms = replace(encoder, is_rms=True, num_kv_heads=0)
    connector = replace(
        rms,
        intermediate_size=text.integer("intermediate_size", 1, 16 * MAX_WIDTH, 14336),
        act=activation(text, "hidden_act", "silu"),
    )
    side = size // encoder.patch_size
    return Idefics2Tower(encoder, side, connector, _perceiver(Fields(data, where), text, rms, width))


def _perceiver(whole: Fields, text: Fields, rms: EncoderSettings, width: int) -> Perceiver:
    said = Fields(whole.table("perceiver_config") or {}, f"{whole.where}: perceiver_config")
    own, eps = said.integer("hidden_size", 1, MAX_WIDTH, 4096), said.number("rms_norm_eps", 1e-30, 1.0, 1e-6)
    if own != width:
        # as transformers has it: then nobody meant what is said of it
        eps = text.number("rms_norm_eps", 1e-30, 1.0, 1e-5)
    heads, shared = (
        said.integer("resampler_n_heads", 1, MAX_HEADS, 16),
        said.integer("num_key_value_heads", 1, 2**10, 4),
    )
    if heads % shared:
        said.fail("num_key_value_heads", shared, f"must divide resampler_n_heads={heads}")
    found = Perceiver(
        _RESAMPLER,
        replace(
            rms,
            hidden_size=width,
            intermediate_size=4 * width,
            num_layers=said.integer("resampler_depth", 1, MAX_LAYERS, 3),
            num_heads=heads,
            num_kv_heads=shared,
            act=activation(said, "hidden_act", "silu"),
            eps=eps,
        ),
        said.integer("resampler_head_dim", 1, 2**12, 96),
        said.integer("resampler_n_latents", 1, 2**14, 64),
    )
    said.refuse_unread(IGNORABLE | keys("model_type"), {"qk_layer_norms_perceiver": (False,)})
    return found
