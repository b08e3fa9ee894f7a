"""Fun-ASR-Nano: layers whose values have a memory of those around them, two linears, and layers of the text's width.

Found by vision/tower.py. A tile is a sound of up to two minutes: of frames seven side by side are its rows, 60 ms each.
The first layer reads what is wider than what it gives, so that nothing is added to it. Source: Tongyi Fun Team 2025,
Fun-ASR; Gao et al. 2020, SAN-M.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from albireo.errors import InvariantError, ModelError
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_DEPTHWISE_WIDTH
from albireo.json_file import Fields
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.positions import sines
from albireo.models.hearing.settings import IGNORABLE, audio_fields
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, Names, layers, linear, mlp, norm, rounded_norm, seen
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import MAX_WIDTH, activation, encoder_settings, text_width
from albireo.models.vision.tower_inputs import HoldsNothing, RowAPatch, TowerInputs

#: Rows of the longest sound.
MOST_ROWS = 2000
PREFIX, PROJECTOR = "audio_tower", "multi_modal_projector"
NAMES = Names()
_DEFAULTS = sizes(512, 2048, 70, 4, hidden_act="relu", layer_norm_eps=1e-5, patch_size=1)
_OF_ADAPTOR = sizes(1024, 256, 2, 8, hidden_act="relu", layer_norm_eps=1e-5, patch_size=1)
_OF_TRAINING = {"hidden_dropout", "attention_dropout", "max_position_embeddings"}


@dataclass(frozen=True, eq=False)
class FunAsrNanoTower(RowAPatch, HoldsNothing):
    """Implements tower.VisionTower.

    Fields: given: numbers of a row. kernel: of memories. normed: layers behind which there is a norm. adaptor: the
    layers behind the linears, the first of which gives so many numbers: wide, and act is behind it.
    """

    encoder: EncoderSettings
    given: int
    kernel: int
    normed: tuple[int, ...]
    adaptor: EncoderSettings
    wide: int
    act: str

    def patches(self, height: int, width: int) -> int:
        if width != self.given or not 1 <= height <= MOST_ROWS:
            raise InvariantError(f"{height} rows of {width} bands; this tower hears up to {MOST_ROWS} of {self.given}")
        return height

    def inputs(self, tile: F32) -> TowerInputs:
        scaled = tile * np.float32(self.encoder.hidden_size**0.5)
        return TowerInputs((scaled + self._places[: len(tile)],), (len(tile), 1))

    @cached_property
    def _places(self) -> F32:
        """They are counted from 1."""
        return sines(MOST_ROWS + 1, self.given)[1:]

    def graph(self) -> Graph:
        b = GraphBuilder()
        x = b.given(self.given, 0)
        for number in range(self.encoder.num_layers):
            x = self._layer(b, x, number)
        return pooled_states(b, x)

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"{PREFIX}.layers.{number}"
        with b.part(f"layers.{number}.attn"):
            given = self._attention(b, rounded_norm(b, c, x, f"{name}.{NAMES.attention_norm}"), f"{name}.self_attn")
            # where widths differ nothing is added to
            x = b.add(x, given) if int(x.type.dims[-1]) == c.hidden_size else given
        with b.part(f"layers.{number}.mlp"):
            h = rounded_norm(b, c, x, f"{name}.{NAMES.ffn_norm}")
            widths = c.intermediate_size, c.hidden_size
            x = b.add(x, mlp(b, c, h, name, widths, c.act, parts=(NAMES.up, NAMES.down)))
        return norm(b, c, x, f"{name}.final_layernorm") if number in self.normed else x

    def _attention(self, b: GraphBuilder, h: Value, name: str) -> Value:
        """What heads give, and what the values around each row do."""
        c, width = self.encoder, self.encoder.hidden_size
        q, k, v = (linear(b, c, h, f"{name}.{part}_proj", width, part) for part in "qkv")
        o = linear(b, c, seen(b, c, q, k, v), f"{name}.o_proj", width, "o")
        with b.part("memory"):
            taps = b.weight(f"{name}.fsmn.conv.weight", (width, self.kernel), "float32")
            return b.add(b.add(o, v), b.depthwise_conv(v, taps, None, "none"))

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.adaptor
        x = mlp(b, c, b.given(self.encoder.hidden_size, 0), PROJECTOR, (self.wide, c.hidden_size), self.act)
        x = layers(b, c, x, f"{PROJECTOR}.layers", NAMES)
        return pooled_states(b, x)


def open_fun_asr_nano(data: Mapping[str, Any], dtype: str, where: str) -> FunAsrNanoTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields, whole = audio_fields(data, where, ("fun_asr_nano_encoder",)), Fields(data, where)
    encoder = encoder_settings(fields, dtype, _DEFAULTS)
    given = fields.integer("num_mel_bins", 1, MAX_WIDTH, 80) * fields.integer("num_stacked_frames", 1, 64, 7)
    if given == encoder.hidden_size:
        fields.unsupported("hidden_size", given, "rows that are read are of another width")
    last = fields.integer("num_timestamp_prediction_layers", 0, encoder.num_layers, 20)
    kernel = fields.integer("fsmn_kernel_size", 1, MAX_DEPTHWISE_WIDTH, 11)
    if kernel % 2 == 0:
        fields.unsupported("fsmn_kernel_size", kernel, "supported: odd numbers")
    if fields.integer("max_position_embeddings", 1, 2**20, 2049) <= MOST_ROWS:
        fields.unsupported("max_position_embeddings", fields.raw("max_position_embeddings"), f"wanted {MOST_ROWS + 1}")
    fields.refuse_unread(IGNORABLE | _OF_TRAINING, {})
    table = whole.table("adaptor_config")
    if table is None:
        raise ModelError(f"{where}: adaptor_config is missing")
    behind = Fields(table, f"{where}: adaptor_config")
    adaptor = encoder_settings(behind, dtype, _OF_ADAPTOR)
    wide = behind.integer("projector_hidden_size", 1, MAX_WIDTH, 2048)
    act = activation(behind, "projector_hidden_act", "relu")
    behind.refuse_unread(IGNORABLE | _OF_TRAINING | {"model_type"}, {})
    width = text_width(data, where, 1024)
    if adaptor.hidden_size != width:
        behind.fail("hidden_size", adaptor.hidden_size, f"must be hidden_size={width} of the text part")
    normed = (encoder.num_layers - last - 1, encoder.num_layers - 1)
    return FunAsrNanoTower(encoder, given, kernel, normed, adaptor, wide, act)
