"""wav2vec 2.0's encoder as a tower, which HuBERT, UniSpeech, data2vec and Omnilingual ASR have, too: samples, made
frames of 20 ms by seven convolutions; each frame has added what a convolution of a second and more says of those around
it, or several smaller ones do.

Found by vision/tower.py. A tile is a sound: samples are its rows. The stem computes it a second at a time, as its rows
are many times what they are made of. Where the first convolution's channels each have one mean and one variance, that
is told of the samples' own, before. What is around frames is the host's (around.py). Sources: Baevski et al. 2020,
wav2vec 2.0; Hsu et al. 2021, HuBERT; Wang et al. 2021, UniSpeech; Baevski et al. 2022, data2vec; Omnilingual ASR team
2025, Omnilingual ASR.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError, ModelError, WeightMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import Fields, keys
from albireo.models.blocks.ctc_of_samples import FRAME, KERNELS, SAMPLES, STRIDES, num_frames
from albireo.models.blocks.feed_forward import activated
from albireo.models.blocks.layers import pooled_states
from albireo.models.hearing.around import Around, gelu, normed
from albireo.models.hearing.settings import IGNORABLE
from albireo.models.hearing.stem import SeesNothing, Stem, seen_in_time
from albireo.models.settings.class_sizes import sizes
from albireo.models.vision.encoder import EncoderSettings, Names, attended, layer, linear, mlp, norm
from albireo.models.vision.patches import F32
from albireo.models.vision.settings import MAX_WIDTH, encoder_settings
from albireo.models.vision.tower_inputs import GivesRowsOnce, RowAPatch, TowerInputs

_CONV = "feature_extractor.conv_layers"
_AROUND = "encoder.pos_conv_embed.conv"
#: Where there are several, behind which their numbers come.
_SEVERAL = "encoder.pos_conv_embed.layers"
#: Of its weight where it is a length, and what is made of that length.
_LENGTHS, _DIRECTIONS = (f"{_AROUND}.parametrizations.weight.original{number}" for number in range(2))
#: What checkpoints call the parts of a layer.
LAYER = Names(
    "layer_norm",
    "attention.q_proj",
    "attention.k_proj",
    "attention.v_proj",
    "attention.out_proj",
    "final_layer_norm",
    "feed_forward.intermediate_dense",
    "feed_forward.output_dense",
)
_DEFAULTS = sizes(768, 3072, 12, 12, hidden_act="gelu", patch_size=1)
#: Frames of a piece.
_PIECE = 50
_EPS = 1e-5
#: What is of training, of heads that other classes have, and of the text, which the decoder's config reads.
_BESIDE = keys(
    "apply_spec_augment mask_time_prob mask_time_length mask_time_min_masks mask_feature_prob mask_feature_length",
    "mask_feature_min_masks mask_channel_length mask_channel_min_space mask_channel_other mask_channel_prob",
    "mask_channel_selection mask_time_min_space mask_time_other mask_time_selection mask_feature_min_space",
    "feat_proj_dropout feat_extract_dropout feat_quantizer_dropout final_dropout ctc_loss_reduction ctc_zero_infinity",
    "num_codevectors_per_group num_codevector_groups contrastive_logits_temperature num_negatives codevector_dim",
    "proj_codevector_dim diversity_loss_weight use_weighted_layer_sum classifier_proj_size tdnn_dim tdnn_kernel",
    "tdnn_dilation xvector_output_dim num_adapter_layers adapter_kernel_size adapter_stride output_hidden_size",
    "num_feat_extract_layers feat_extract_activation",
    "blank_token_id model_type add_bos_token freeze_feat_extract_train no_mask_channel_overlap no_mask_time_overlap",
    "num_ctc_classes replace_prob num_clusters",
)


@dataclass(frozen=True, slots=True)
class _Stem(SeesNothing):
    """Implements stem.Stem. A piece is a second. Of one whose channels are normed, the first graph is bare, and the
    second what is made of its numbers; then a graph for each convolution, and the linear behind all.

    Fields: tower: see there. scales: of the tile that is computed, gain and shift of each channel.
    """

    tower: Wav2Vec2Tower
    scales: list[F32] = field(default_factory=list)

    def graphs(self) -> tuple[Graph, ...]:
        t, first = self.tower, [self._first_bare(), self._activation()] if self.tower.norms_channels else []
        convolutions = [self._convolution(number) for number in range(len(first) // 2, len(KERNELS))]
        b = GraphBuilder()
        with b.part("projection"):
            x = norm(b, t.encoder, b.given(t.widths[-1], 0), "feature_projection.layer_norm")
            x = linear(b, t.encoder, x, "feature_projection.projection", t.encoder.hidden_size, "up")
        return *first, *convolutions, pooled_states(b, x)

    def _first_bare(self) -> Graph:
        b, t = GraphBuilder(), self.tower
        given = b.given(KERNELS[0], 0)
        with b.part("embed"):
            x = linear(b, t.encoder, given, f"{_CONV}.0.conv", t.widths[0], "frames", t.has_conv_bias)
        return pooled_states(b, x)

    def _activation(self) -> Graph:
        b = GraphBuilder()
        with b.part("act"):
            x = activated(b, b.given(self.tower.widths[0], 0), self.tower.conv_act)
        return pooled_states(b, x)

    def _convolution(self, number: int) -> Graph:
        b, t = GraphBuilder(), self.tower
        given = b.given(KERNELS[number] * (t.widths[number - 1] if number else 1), 0)
        with b.part("embed"):
            x = linear(b, t.encoder, given, f"{_CONV}.{number}.conv", t.widths[number], "frames", t.has_conv_bias)
            if not t.norms_channels:
                x = norm(b, t.encoder, x, f"{_CONV}.{number}.layer_norm", _EPS)
            with b.part("act"):
                x = activated(b, x, t.conv_act)
        return pooled_states(b, x)

    def most_rows(self, patches: int) -> tuple[int, ...]:
        counts = [num_frames(_samples(_PIECE), times) for times in range(1, len(KERNELS) + 1)]
        return *((counts[0],) if self.tower.norms_channels else ()), *counts, _PIECE

    def pieces(self, tile: F32) -> Iterator[F32]:
        if self.tower.norms_channels:
            self.scales[:] = self.tower.channel_scales(tile[:, 0])
        count = num_frames(len(tile))
        for first in range(0, count, _PIECE):
            end = min(count, first + _PIECE)
            yield seen_in_time(tile[first * FRAME : first * FRAME + _samples(end - first)], KERNELS[0], STRIDES[0])

    def behind(self, number: int, hidden: F32) -> F32:
        if self.tower.norms_channels:
            if number == 0:
                gain, shift = self.scales
                return np.asarray(hidden * gain + shift, np.float32)
            number -= 1
        # the last convolution's are read as they are, and so is what the linear gives
        return seen_in_time(hidden, KERNELS[number + 1], STRIDES[number + 1]) if number + 1 < len(KERNELS) else hidden


def _samples(frames: int) -> int:
    """That so many frames are made of."""
    for kernel, stride in zip(KERNELS[::-1], STRIDES[::-1], strict=True):
        frames = (frames - 1) * stride + kernel
    return frames


@dataclass(slots=True)
class Wav2Vec2Tower(RowAPatch, GivesRowsOnce):
    """Implements tower.VisionTower.

    Fields: widths: channels of convolutions. norms_channels: each channel of the first one is normed over a sound; else
    all of each are, moment by moment. norms_before: layers norm what they read; else what they give. reach, groups: of
    the convolution around frames, whose weight is lengths and directions where has_lengths says so. several: how many
    there are of it, one behind the other, each normed; 0: one, as it is.
    """

    encoder: EncoderSettings
    widths: tuple[int, ...]
    conv_act: str
    has_conv_bias: bool
    norms_channels: bool
    norms_before: bool
    reach: int
    groups: int
    has_lengths: bool
    several: int = 0
    held: dict[str, NDArray[Any]] = field(default_factory=dict)
    arounds: list[Around] = field(default_factory=list)

    unread_tensors: ClassVar[tuple[str, ...]] = (
        "masked_spec_embed",
        "encoder.pos_conv_embed.*",
        f"{_CONV}.0.layer_norm.*",
    )
    largest = (SAMPLES, 1)

    @property
    def num_positions(self) -> int:
        """Of the longest sound."""
        return num_frames(SAMPLES)

    @property
    def host_tensors(self) -> tuple[str, ...]:
        of_channels = ("conv.weight", "layer_norm.weight", "layer_norm.bias")
        of_first = tuple(f"{_CONV}.0.{name}" for name in of_channels) if self.norms_channels else ()
        weights = (weight for weight, _ in self._of_arounds)
        biases = (bias for _, bias in self._of_arounds)
        return *of_first, *((_LENGTHS,) if self.has_lengths else ()), *weights, *biases

    @property
    def _of_arounds(self) -> list[tuple[str, str]]:
        """Names of weight and bias of each."""
        if self.several:
            return [(f"{_SEVERAL}.{n}.conv.weight", f"{_SEVERAL}.{n}.conv.bias") for n in range(self.several)]
        return [(_DIRECTIONS if self.has_lengths else f"{_AROUND}.weight", f"{_AROUND}.bias")]

    def hold(self, tensors: Mapping[str, F32]) -> None:
        width, size = self.encoder.hidden_size, self.encoder.hidden_size // self.groups
        wanted = {_LENGTHS: self.reach} if self.has_lengths else {}
        for of_weight, bias in self._of_arounds:
            wanted |= {of_weight: width * size * self.reach, bias: width}
        for name, count in wanted.items():
            if tensors[name].size != count:
                raise WeightMismatch(f"{name} has shape {tensors[name].shape}; wanted {count:,} numbers")
        self.arounds.clear()
        for of_weight, bias in self._of_arounds:
            weight = tensors[of_weight].reshape(width, size, self.reach).astype(np.float64)
            if self.has_lengths:
                weight = weight * (tensors[_LENGTHS].reshape(-1) / np.sqrt((weight**2).sum(axis=(0, 1))))
            self.arounds.append(Around.of(weight, tensors[bias].reshape(-1), self.groups))
        self.held |= {name: tensors[name] for name in self.host_tensors if name not in wanted}

    def channel_scales(self, samples: F32) -> tuple[F32, F32]:
        """Gain and shift of each channel of the first convolution, by which all its numbers of a sound have the mean
        and variance that the norm gives them: these are told of the samples that it sees side by side."""
        if not self.held:
            raise InvariantError("channels are normed before weights are held")
        seen = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), KERNELS[0])[:: STRIDES[0]]
        weight = self.held[f"{_CONV}.0.conv.weight"].reshape(self.widths[0], -1).astype(np.float64)
        mean = seen.mean(axis=0)
        shared = (seen - mean).T @ (seen - mean) / len(seen)
        variance = np.einsum("ci,ij,cj->c", weight, shared, weight)
        gain = self.held[f"{_CONV}.0.layer_norm.weight"] / np.sqrt(variance + _EPS)
        shift = self.held[f"{_CONV}.0.layer_norm.bias"] - gain * (weight @ mean)
        return gain.astype(np.float32), shift.astype(np.float32)

    @property
    def stem(self) -> Stem:
        return _Stem(self)

    def patches(self, height: int, width: int) -> int:
        if width != 1 or num_frames(height) < 1 or height > SAMPLES:
            raise InvariantError(f"{height} samples of {width} channels; this encoder hears up to {SAMPLES}")
        return num_frames(height)

    def inputs(self, tile: F32) -> TowerInputs:
        return TowerInputs((tile, self.around(tile)), (len(tile), 1))

    def around(self, frames: F32) -> F32:
        """[n, E] of frames [n, E], all but the last activation."""
        found = frames
        for number, around in enumerate(self.arounds):
            found = around(gelu(found) if number else found)
            if self.several:
                found = normed(found, _EPS)
        return found

    # -- what is computed ---------------------------------------------------------------------------------------------

    def graph(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        with b.part("embed"):
            x = b.add(b.given(c.hidden_size, 0), activated(b, b.given(c.hidden_size, 1), self.conv_act))
        if not self.norms_before:
            with b.part("embed"):
                x = norm(b, c, x, "encoder.layer_norm")
        for number in range(c.num_layers):
            x = self._layer(b, x, number) if self.norms_before else self._normed_layer(b, x, number)
        return pooled_states(b, x)

    def _layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        """Of those that norm what they read."""
        return layer(b, self.encoder, x, number, "encoder.layers", LAYER)

    def _attended(self, b: GraphBuilder, h: Value, name: str) -> Value:
        """What attention gives of h, rounded. Args: name: of the layer."""
        return attended(b, self.encoder, h, name, LAYER, 0)

    def _normed_layer(self, b: GraphBuilder, x: Value, number: int) -> Value:
        c, name = self.encoder, f"encoder.layers.{number}"
        with b.part(f"layers.{number}.attn"):
            a = self._attended(b, b.cast(x, c.dtype), name)
            o = linear(b, c, a, f"{name}.{LAYER.out}", c.hidden_size, "o")
            with b.part("o"):
                x = norm(b, c, b.add(x, o), f"{name}.layer_norm")
        with b.part(f"layers.{number}.mlp"):
            widths = c.intermediate_size, c.hidden_size
            down = mlp(b, c, x, name, widths, c.act, parts=(LAYER.up, LAYER.down))
            with b.part("down"):
                return norm(b, c, b.add(x, down), f"{name}.final_layer_norm")

    def projector(self) -> Graph:
        b, c = GraphBuilder(), self.encoder
        x = b.given(c.hidden_size, 0)
        return pooled_states(b, norm(b, c, x, "encoder.layer_norm") if self.norms_before else x)


def open_wav2vec2(data: Mapping[str, Any], dtype: str, where: str) -> Wav2Vec2Tower:
    """Of wav2vec 2.0, HuBERT and UniSpeech. Raises: ModelError for a bad value; UnsupportedModel for what is not
    computed."""
    fields = Fields(data, where)
    kind = fields.one_of("feat_extract_norm", ("group", "layer"), "group")
    for key, only in (
        ("add_adapter", False),
        ("conv_pos_batch_norm", False),
        ("feat_proj_layer_norm", True),
    ):
        if fields.flag(key, only) is not only:
            fields.unsupported(key, fields.raw(key), f"supported: {str(only).lower()}")
    if fields.raw("adapter_attn_dim") is not None:
        fields.unsupported("adapter_attn_dim", fields.raw("adapter_attn_dim"), "supported: null")
    return _opened(
        fields,
        dtype,
        norms_channels=kind == "group",
        norms_before=fields.flag("do_stable_layer_norm", False),
        conv_act=fields.text("feat_extract_activation", "gelu"),
        conv_bias=False,
        has_lengths=True,
    )


def open_data2vec_audio(data: Mapping[str, Any], dtype: str, where: str) -> Wav2Vec2Tower:
    """Of data2vec. Raises: as open_wav2vec2()."""
    fields = Fields(data, where)
    if fields.flag("add_adapter", False):
        fields.unsupported("add_adapter", True, "supported: false")
    return _opened(
        fields,
        dtype,
        norms_channels=False,
        norms_before=False,
        conv_act=fields.text("feat_extract_activation", "gelu"),
        conv_bias=False,
        has_lengths=False,
        several=fields.integer("num_conv_pos_embeddings", 1, 64, 5),
        # of wav2vec 2.0: there is one way here, and its class does not ask
        beside=keys("feat_extract_norm do_stable_layer_norm"),
    )


def open_omniasr(data: Mapping[str, Any], dtype: str, where: str) -> Wav2Vec2Tower:
    """Of Omnilingual ASR. Raises: as open_wav2vec2()."""
    table = Fields(data, where).table("audio_config")
    if table is None:
        raise ModelError(f"{where}: audio_config is missing")
    fields = Fields({"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
                     **table}, f"{where}: audio_config")  # fmt: skip
    return _opened(
        fields, dtype, norms_channels=False, norms_before=True, conv_act=fields.text("hidden_act", "gelu"),
        conv_bias=True, has_lengths=False,
    )  # fmt: skip


def _opened(
    fields: Fields,
    dtype: str,
    *,
    norms_channels: bool,
    norms_before: bool,
    conv_act: str,
    conv_bias: bool,
    has_lengths: bool,
    several: int = 0,
    beside: frozenset[str] = frozenset(),
) -> Wav2Vec2Tower:
    encoder = encoder_settings(fields, dtype, _DEFAULTS, eps=fields.number("layer_norm_eps", 1e-30, 1.0, _EPS))
    if conv_act != "gelu":
        fields.unsupported("feat_extract_activation", conv_act, "supported: gelu")
    for key, only in (("conv_kernel", KERNELS), ("conv_stride", STRIDES)):
        given = fields.raw(key)
        if given is not None and given != list(only):
            fields.unsupported(key, given, f"supported: {list(only)}")
    widths = fields.raw("conv_dim") or [512] * len(KERNELS)
    if (
        not isinstance(widths, list)
        or len(widths) != len(KERNELS)
        or any(type(each) is not int or not 1 <= each <= MAX_WIDTH for each in widths)
    ):
        fields.fail("conv_dim", widths, f"must be {len(KERNELS)} numbers of channels")
    key, usual = ("conv_pos_kernel_size", 19) if several else ("num_conv_pos_embeddings", 128)
    reach = fields.integer(key, 2, 1024, usual)
    groups = fields.integer("num_conv_pos_embedding_groups", 1, encoder.hidden_size, 16)
    # those of several may be of an odd number, and are
    if encoder.hidden_size % groups or (reach % 2 and not several):
        what = f"must be a part of hidden_size={encoder.hidden_size}" + ("" if several else f", and {key}={reach} even")
        fields.fail("num_conv_pos_embedding_groups", groups, what)
    has_bias = fields.flag("conv_bias", conv_bias)
    if norms_channels and has_bias:
        fields.unsupported("conv_bias", True, "supported with feat_extract_norm=group: false")
    fields.refuse_unread(IGNORABLE | _BESIDE | beside, {})
    norms = norms_channels, norms_before
    return Wav2Vec2Tower(encoder, tuple(widths), conv_act, has_bias, *norms, reach, groups, has_lengths, several)
