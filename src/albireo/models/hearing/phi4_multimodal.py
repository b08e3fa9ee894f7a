"""Phi-4 multimodal: a conformer that adds to scores what is learned of distances, and two linears.

Found by vision/tower.py. A tile is a sound of up to 40 s, as its positions go: frames are its rows, of which eight
become one. Of the linears there are two pairs: those are read that are for a prompt without pictures. Source: Microsoft
2025, Phi-4-Mini Technical Report, as transformers computes it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from albireo.errors import WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_DEPTHWISE_WIDTH
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.eighths import HALVINGS, EighthsStem
from albireo.models.hearing.settings import IGNORABLE, audio_fields
from albireo.models.hearing.stem import check_heard, halved
from albireo.models.hearing.taps import before_alone
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, linear, mlp, norm, rounded_norm, seen
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import MAX_WIDTH, activation, encoder_settings, text_width
from albireo.models.vision.tower_inputs import GivesRowsOnce, RowAPatch

#: Positions that see each other at once, and frames that they are made of.
_MOST_ROWS, MOST_FRAMES = 500, 4000
_EMBED, _ENCODER = "audio_embed", "audio_embed.encoder"
_CONVOLUTIONS, _DISTANCES = f"{_ENCODER}.embed.conv", f"{_ENCODER}.relative_attention_bias_layer.bias_values.weight"
_MEAN, _GAIN = f"{_ENCODER}.encoder_embedding.global_mean", f"{_ENCODER}.encoder_embedding.global_invstd"
_EPS = 1e-5
_KEYS = {"num_hidden_layers": "num_blocks", "hidden_act": "activation"}
_DEFAULTS = sizes(1024, 1536, 24, 16, hidden_act="swish", patch_size=1)


@dataclass(slots=True)
class Phi4MultimodalEar(RowAPatch, GivesRowsOnce):
    """Implements tower.VisionTower.

    Fields: channels: of the stem's convolutions. kernel: of the layers'. farthest: distances that are told apart,
    either way. gate, conv_act, stem_act: activations. width: of rows.
    """

    encoder: EncoderSettings
    num_bands: int
    channels: int
    kernel: int
    farthest: int
    gate: str
    conv_act: str
    stem_act: str
    width: int
    held: dict[str, F32] = field(default_factory=dict)

    @property
    def host_tensors(self) -> tuple[str, ...]:
        return (*EighthsStem.host_names(_CONVOLUTIONS), _MEAN, _GAIN)

    def hold(self, tensors: Mapping[str, F32]) -> None:
        for name in self.host_tensors:
            of_channels = 9 * self.channels if name.endswith("weight") else self.channels
            count = self.num_bands if name in (_MEAN, _GAIN) else of_channels
            if tensors[name].size != count:
                raise WeightMismatch(f"{name} has shape {tensors[name].shape}; wanted {count:,} numbers")
        self.held |= {name: tensors[name] for name in self.host_tensors}

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        """What others are made of; and linears for prompts with pictures."""
        parts = "b1", "b2", "ext_pw_conv_1d.bias"
        glu = (f"{_ENCODER}.encoders.*.conv.glu.{part}" for part in parts)
        taps = f"{_ENCODER}.encoders.*.conv.dw_sep_conv_1d.dw_conv.weight"
        return (
            *glu,
            taps,
            _DISTANCES,
            f"{_EMBED}.up_proj_for_vision_speech.*",
            f"{_EMBED}.down_proj_for_vision_speech.*",
        )

    @property
    def stem(self) -> EighthsStem:
        sizes = self.num_bands, self.channels, MOST_FRAMES
        return EighthsStem(self.encoder, *sizes, _CONVOLUTIONS, self.stem_act, _MEAN, _GAIN, self.held)

    def patches(self, height: int, width: int) -> int:
        check_heard(height, width, self.num_bands, MOST_FRAMES)
        return halved(height, HALVINGS)

    # -- what is computed ---------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            given = b.given(self.channels * halved(self.num_bands, HALVINGS), 0)
            x = linear(b, c, given, f"{_ENCODER}.embed.out", c.hidden_size, "frames")
        for number in range(c.num_layers):
            x = self._layer(b, x, number)
        return pooled_states(b, x)

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x, parts = b.given(c.hidden_size, 0), ("up_proj_for_speech", "down_proj_for_speech")
        return pooled_states(b, mlp(b, c, x, _EMBED, (self.width, self.width), "gelu", parts=parts))

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"{_ENCODER}.encoders.{number}"
        x = self._ffn(b, x, f"layers.{number}.first", f"{name}.feed_forward_in")
        with b.part(f"layers.{number}.attn"):
            a = self._attention(b, rounded_norm(b, c, x, f"{name}.layer_norm_att"), f"{name}.self_attn")
            x = b.add(x, linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o"))
        with b.part(f"layers.{number}.conv"):
            x = b.add(x, self._convolution(b, x, f"{name}.conv"))
        x = self._ffn(b, x, f"layers.{number}.second", f"{name}.feed_forward_out")
        with b.part(f"layers.{number}.out"):
            return norm(b, c, x, f"{name}.layer_norm")

    def _ffn(self, b: GraphBuilder, x: Value, part: str, name: str) -> Value:
        """x, and half of what an FFN gives."""
        c, wide = self.encoder, self.encoder.intermediate_size
        with b.part(part):
            h = rounded_norm(b, c, x, f"{name}.layer_norm")
            up, gate = (
                linear(b, c, h, f"{name}.{each}", wide, each, True, (f"{name}.gate_up_proj", at * wide))
                for at, each in enumerate(("up", "gate"))
            )
            with b.part("act"):
                m = b.mul(up, activated(b, gate, c.act))
            down = linear(b, c, m, f"{name}.down_proj", c.hidden_size, "down")
            return b.add(x, b.scale(down, 0.5))

    def _attention(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c = self.encoder
        q, k, v = (linear(b, c, h, f"{name}.{part}_proj", c.hidden_size, part) for part in "qkv")
        distances = b.weight(f"{_ENCODER}.distances", (2 * self.farthest + 1, c.num_heads), "float32")
        return seen(b, c, q, k, v, distances=distances)

    def _convolution(self, b: GraphBuilder, x: Value, name: str) -> Value:
        c, width, of = self.encoder, self.encoder.hidden_size, f"{name}.dw_sep_conv_1d"
        h = rounded_norm(b, c, x, f"{name}.layer_norm")
        up, gate = (
            linear(b, c, h, f"{name}.glu.{part}", width, part, False, (f"{name}.glu.ext_pw_conv_1d", at * width))
            for at, part in enumerate(("up", "gate"))
        )
        with b.part("mix"):
            up, gate = (
                b.add(each, b.embed(b.token_ids, b.weight(f"{name}.glu.{part}.bias", (1, width), "float32")))
                for each, part in ((up, "up"), (gate, "gate"))
            )
            x = b.mul(up, activated(b, gate, self.gate))
            # of a convolution that sees what is before: as many zeros are behind
            taps = b.weight(f"{of}.taps", (width, 2 * self.kernel - 1), "float32")
            x = b.depthwise_conv(x, taps, b.weight(f"{of}.dw_conv.bias", (width,), "float32"), "none")
        x = linear(b, c, x, f"{of}.pw_conv", width, "pointwise")
        with b.part("act"):
            x = activated(b, x, self.conv_act)
        return linear(b, c, x, f"{name}.ext_pw_conv_1d", width, "down")

    # -- what is made of the checkpoint's -----------------------------------------------------------------------------

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        found = {
            f"{_ENCODER}.distances": Made((2 * self.farthest + 1, self.encoder.num_heads), (_DISTANCES,), _with_last)
        }
        for number in range(self.encoder.num_layers):
            found |= dict(self._made(f"{_ENCODER}.encoders.{number}.conv"))
        return found

    def _made(self, name: str) -> Iterator[tuple[str, Made]]:
        width = self.encoder.hidden_size
        yield f"{name}.glu.up.bias", Made((1, width), (f"{name}.glu.ext_pw_conv_1d.bias", f"{name}.glu.b1"), _first)
        yield f"{name}.glu.gate.bias", Made((1, width), (f"{name}.glu.ext_pw_conv_1d.bias", f"{name}.glu.b2"), _second)
        taps = width, 2 * self.kernel - 1
        made = before_alone(width, self.kernel)
        yield f"{name}.dw_sep_conv_1d.taps", Made(taps, (f"{name}.dw_sep_conv_1d.dw_conv.weight",), made)


def _with_last(table: F32) -> F32:
    """Of distances -n to n - 1 those to n, which counts as the one before."""
    return np.concatenate([table, table[-1:]])


def _first(bias: F32, more: F32) -> F32:
    return np.asarray((bias.reshape(2, -1)[0] + more.reshape(-1))[None], np.float32)


def _second(bias: F32, more: F32) -> F32:
    return np.asarray((bias.reshape(2, -1)[1] + more.reshape(-1))[None], np.float32)


def open_phi4_multimodal(data: Mapping[str, Any], dtype: str, where: str) -> Phi4MultimodalEar:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = audio_fields(data, where, ("phi4_multimodal_audio",), _KEYS)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=_EPS)
    width = encoder.hidden_size
    for key, only in (
        ("ext_pw_out_channel", width),
        ("depthwise_separable_out_channel", width),
        ("depthwise_multiplier", 1),
        ("time_reduction", 2**HALVINGS),
        ("downsample_rate", 1),
    ):
        default = 1024 if only == width else only
        if fields.integer(key, 1, MAX_WIDTH, default) != only:
            fields.unsupported(key, fields.raw(key), f"supported: {only}")
    tower = Phi4MultimodalEar(
        encoder,
        fields.integer("input_size", 1, MAX_WIDTH, 80),
        fields.integer("nemo_conv_channels", 1, MAX_WIDTH, 1024),
        fields.integer("kernel_size", 1, MAX_DEPTHWISE_WIDTH // 2, 3),
        fields.integer("bias_max_distance", 1, 2**15, 1000),
        activation(fields, "conv_glu_type", "swish"),
        activation(fields, "conv_activation", "swish"),
        activation(fields, "nemo_activation", "relu"),
        text_width(data, where, 3072),
    )
    # chunks of one whole, and a layer that transformers does not ask, either: rows are the last's
    ignored = {"audio_token_id", "left_chunk", "feature_layer", "nemo_final_size", "dropout_rate"}
    fields.refuse_unread(IGNORABLE | ignored, {"chunk_size": (-1,)})
    return tower
