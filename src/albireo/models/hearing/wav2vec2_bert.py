"""W2v-BERT 2.0's encoder as a tower: a conformer whose convolutions see what was heard before, and whose rows see by
vectors how far from them others are, as far as that is told apart.

Found by vision/tower.py. A tile is a sound: pairs of frames are its rows. Sources: Barrault et al. 2023, Seamless;
Shaw et al. 2018, Self-Attention with Relative Position Representations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from albireo.errors import InvariantError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.op_numbers import MAX_DEPTHWISE_WIDTH
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.gated import gated
from albireo.models.hearing.settings import IGNORABLE
from albireo.models.hearing.taps import before_alone
from albireo.models.settings.class_sizes import sizes
from albireo.models.speech.wav2vec2_bert import ROWS
from albireo.models.vision.encoder import EncoderSettings, linear, mlp, norm, rounded_norm, seen
from albireo.models.vision.made_tensors import Made
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings
from albireo.models.vision.tower_inputs import HoldsNothing, RowAPatch

_PROJECTION, _LAYERS = "feature_projection", "encoder.layers"
_DEFAULTS = sizes(1024, 4096, 24, 16, hidden_act="swish", patch_size=1)
#: What is of training, of adapters and positions that are refused, of other heads, and of the text.
_BESIDE = keys(
    "model_type add_bos_token apply_spec_augment mask_time_prob mask_time_length mask_time_min_masks",
    "mask_feature_prob mask_feature_length mask_feature_min_masks feat_proj_dropout final_dropout",
    "ctc_loss_reduction ctc_zero_infinity use_weighted_layer_sum classifier_proj_size tdnn_dim tdnn_kernel",
    "tdnn_dilation xvector_output_dim adapter_kernel_size adapter_stride num_adapter_layers adapter_act",
    "output_hidden_size rotary_embedding_base max_source_positions conformer_conv_dropout",
)


@dataclass(frozen=True, slots=True)
class Wav2Vec2BertTower(RowAPatch, HoldsNothing):
    """Implements tower.VisionTower. Fields: bands: of a row. kernel: of convolutions. before, behind: distances that
    are told apart of rows before, and behind, another."""

    encoder: EncoderSettings
    bands: int
    kernel: int
    before: int
    behind: int

    #: Of the longest sound.
    num_positions = ROWS

    @property
    def largest(self) -> tuple[int, int]:
        return ROWS, self.bands

    @property
    def reach(self) -> int:
        """Rows, of which farther ones are as the last, either way."""
        return max(self.before + 1, self.behind)

    @property
    def unread_tensors(self) -> tuple[str, ...]:
        parts = "self_attn.distance_embedding.*", "conv_module.depthwise_conv.*"
        return "masked_spec_embed", *(f"{_LAYERS}.*.{part}" for part in parts)

    def patches(self, height: int, width: int) -> int:
        if width != self.bands or not 1 <= height <= ROWS:
            raise InvariantError(f"{height} rows of {width} bands; this encoder hears up to {ROWS} of {self.bands}")
        return height

    # -- what is computed ---------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = norm(b, c, b.given(self.bands, 0), f"{_PROJECTION}.layer_norm")
            x = linear(b, c, x, f"{_PROJECTION}.projection", c.hidden_size, "frames")
        x = self._layer(b, x, 0)
        for number in range(1, c.num_layers):
            x = self._layer(b, self._normed(b, x, number - 1), number)
        return pooled_states(b, x)

    def projector(self) -> Graph:
        """The norm of the last layer."""
        b, c = GraphBuilder(), self.encoder
        return pooled_states(b, self._normed(b, b.given(c.hidden_size, 0), c.num_layers - 1))

    def _normed(self, b: GraphBuilder, x: Value, number: int) -> Value:
        with b.part(f"layers.{number}.out"):
            return norm(b, self.encoder, x, f"{_LAYERS}.{number}.final_layer_norm")

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        """x behind one layer, before its norm."""
        c, name = self.encoder, f"{_LAYERS}.{number}"
        x = self._ffn(b, x, f"layers.{number}.first", f"{name}.ffn1")
        with b.part(f"layers.{number}.attn"):
            a = self._attention(b, rounded_norm(b, c, x, f"{name}.self_attn_layer_norm"), f"{name}.self_attn")
            x = b.add(x, linear(b, c, a, f"{name}.self_attn.linear_out", c.hidden_size, "o"))
        with b.part(f"layers.{number}.conv"):
            x = b.add(x, self._convolution(b, x, f"{name}.conv_module"))
        return self._ffn(b, x, f"layers.{number}.second", f"{name}.ffn2")

    def _ffn(self, b: GraphBuilder, x: Value, part: str, name: str) -> Value:
        """x, and half of what an FFN gives."""
        c = self.encoder
        with b.part(part):
            h = rounded_norm(b, c, x, f"{name}_layer_norm")
            widths = c.intermediate_size, c.hidden_size
            down = mlp(b, c, h, name, widths, c.act, parts=("intermediate_dense", "output_dense"))
            with b.part("down"):
                return b.add(x, b.scale(down, 0.5))

    def _attention(self, b: GraphBuilder, h: Value, name: str) -> Value:
        c = self.encoder
        q, k, v = (linear(b, c, h, f"{name}.linear_{part}", c.hidden_size, part) for part in "qkv")
        with b.part("by_distance"):
            table = b.weight(f"{name}.by_distance", (c.num_heads * 2 * self.reach, c.head_dim), c.dtype)
            near = b.head_linear(b.cast(q, c.dtype), table, c.num_heads)
        return seen(b, c, q, k, v, by_columns=(near,), reach=self.reach)

    def _convolution(self, b: GraphBuilder, x: Value, name: str) -> Value:
        c, width = self.encoder, self.encoder.hidden_size
        h = rounded_norm(b, c, x, f"{name}.layer_norm")
        x = gated(b, c, h, name, "pointwise_conv1", width, False)
        with b.part("mix"):
            taps = b.weight(f"{name}.taps", (width, 2 * self.kernel - 1), "float32")
            x = b.depthwise_conv(x, taps, activation="none")
            x = activated(b, norm(b, c, x, f"{name}.depthwise_layer_norm"), c.act)
        return linear(b, c, x, f"{name}.pointwise_conv2", width, "down", False)

    # -- what is made of the checkpoint's -----------------------------------------------------------------------------

    @property
    def made_tensors(self) -> Mapping[str, Made]:
        c, found = self.encoder, dict[str, Made]()
        for number in range(c.num_layers):
            attention, conv = (f"{_LAYERS}.{number}.{part}" for part in ("self_attn", "conv_module"))
            dims = c.num_heads * 2 * self.reach, c.head_dim
            sources = (f"{attention}.distance_embedding.weight",)
            found[f"{attention}.by_distance"] = Made(dims, sources, self._by_distance)
            taps = c.hidden_size, 2 * self.kernel - 1
            made = before_alone(c.hidden_size, self.kernel)
            found[f"{conv}.taps"] = Made(taps, (f"{conv}.depthwise_conv.weight",), made)
        return found

    def _by_distance(self, table: F32) -> F32:
        """[heads * 2 * reach, head_dim], alike for each head, in the order of distance_columns.

        Args: table: [before + behind + 1, head_dim], of the row farthest before another first.
        """
        if table.shape != (self.before + self.behind + 1, self.encoder.head_dim):
            raise WeightMismatch(
                f"distance_embedding.weight has shape {table.shape}; wanted vectors of {self.before} distances before "
                f"and {self.behind} behind"
            )
        away = np.arange(-self.reach, self.reach)
        return np.tile(table[np.clip(-away, -self.before, self.behind) + self.before], (self.encoder.num_heads, 1))


def open_wav2vec2_bert(data: Mapping[str, Any], dtype: str, where: str) -> Wav2Vec2BertTower:
    """Raises: ModelError for a bad value; UnsupportedModel for what is not computed."""
    fields = Fields(data, where)
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=fields.number("layer_norm_eps", 1e-30, 1.0, 1e-5))
    for key in ("add_adapter", "use_intermediate_ffn_before_adapter"):
        if fields.flag(key, False):
            fields.unsupported(key, True, "supported: false")
    fields.one_of("position_embeddings_type", ("relative_key",), "relative_key")
    tower = Wav2Vec2BertTower(
        encoder,
        fields.integer("feature_projection_input_dim", 1, MAX_WIDTH, 160),
        fields.integer("conv_depthwise_kernel_size", 1, MAX_DEPTHWISE_WIDTH // 2, 31),
        fields.integer("left_max_position_embeddings", 0, ROWS, 64),
        fields.integer("right_max_position_embeddings", 0, ROWS, 8),
    )
    fields.refuse_unread(IGNORABLE | _BESIDE, {})
    return tower
