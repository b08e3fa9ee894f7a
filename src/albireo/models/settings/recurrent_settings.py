"""Layers with a recurrent state in place of attention, as config.json says them: which they are, and their shape.

Called by config.py. Does not know weights or graphs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from albireo.graph.op_numbers import MAX_CONV_WIDTH
from albireo.json_file import Fields
from albireo.models.settings.layer_kinds import kinds_beside_convolutions, layer_kinds

_MAX_HEADS = 2**12
MAX_DIM = 2**10
#: What layers with attention may be called beside full_attention.
_OTHERS = {"joined": ("sliding_attention",), "qwen4": ("indexed_attention",)}
#: Whether some layers keep a state: by the gated delta rule, and how what they read lies, see lies_by_head; or of a
#: short convolution, beside attention that has a window in some layers, too.
RecurrentRule = Literal[
    "none",
    "by_part",
    "by_head",
    "apart",
    "joined",
    "kimi",
    "bailing",
    "glm",
    "qwen4",
    "short_conv",
    "short_conv_windows",
    "convolved",
]


@dataclass(frozen=True, slots=True)
class GatedDeltaSettings:
    """The gated delta rule of a model.

    Fields:
        layers: of each layer, whether it keeps a state; the others have attention.
        k_heads, k_dim: heads of queries and keys, and channels of one; v_heads, v_dim: of values.
        conv_width: rows that the convolution before it reads for one.
        lies_by_head: queries, keys, values and gates of values lie in one tensor, head of keys by head of keys (its
            query, its key, its values, their gates), and so do b and a. lies_apart: queries, keys and values lie in
            tensors of their own. lies_joined: all of these lie in one, part by part, and b and a behind them.
        learns_twice: what is learned is twice the sigmoid of b. most_decay: see ops.gated_delta_rule; 0: none.
        gate: what is made of the gates of values, where rates are those of heads.
    """

    layers: tuple[bool, ...]
    k_heads: int
    v_heads: int
    k_dim: int
    v_dim: int
    conv_width: int
    lies_by_head: bool
    lies_apart: bool = False
    lies_joined: bool = False
    learns_twice: bool = False
    most_decay: float = 0.0
    gate: str = "silu"

    @property
    def channels(self) -> int:
        """Of queries, keys and values together."""
        return 2 * self.k_heads * self.k_dim + self.v_heads * self.v_dim

    @property
    def state_bytes(self) -> int:
        """Of one sequence, over all layers: rows of the convolutions, and the states, in float32."""
        numbers = (self.conv_width - 1) * self.channels + self.v_heads * self.k_dim * self.v_dim
        return 4 * sum(self.layers) * numbers


@dataclass(frozen=True, slots=True)
class ShortConvSettings:
    """The gated short convolutions of a model.

    Fields:
        layers: of each layer, whether it has one; the others have attention.
        channels: of one. width: rows that it reads for one. has_bias: it has one, and so have the linears around it.
    """

    layers: tuple[bool, ...]
    channels: int
    width: int
    has_bias: bool

    @property
    def state_bytes(self) -> int:
        """Of one sequence, over all layers, in float32."""
        return 4 * sum(self.layers) * (self.width - 1) * self.channels


@dataclass(frozen=True, slots=True)
class ConvolvedSettings:
    """Attention whose queries and keys are convolved (ZAYA), in every layer.

    Fields:
        layers: of each layer, that it is so. channels: of queries and keys together; values: that a position hands to
            the next one.
        first, second: positions that the convolution of channels reads for one, and that of heads behind it.
        router_width: channels that a layer's router hands to the next one's.
    """

    layers: tuple[bool, ...]
    channels: int
    values: int
    first: int
    second: int
    router_width: int

    @property
    def state_bytes(self) -> int:
        """Of one sequence, over all layers, in float32: rows of a convolution for each position of the second."""
        rows = sum(self.first - 1 + ago for ago in range(self.second))
        return 4 * sum(self.layers) * (rows * self.channels + self.values)


RecurrentSettings = GatedDeltaSettings | ShortConvSettings | ConvolvedSettings


def parse_recurrent(fields: Fields, rule: RecurrentRule, layers: int, hidden: int) -> RecurrentSettings | None:
    """Read the keys of Qwen 3 Next and 3.5, of OLMo Hybrid, of Kimi Linear, of LFM2, or of LFM3.

    Args: hidden: hidden_size.

    Returns: None where every layer has attention.
    Raises: ModelError for a bad value, UnsupportedModel for a kind of layer that is not computed.
    """
    if rule == "none":
        return None
    if rule == "convolved":
        return _convolved(fields, layers, hidden)
    if rule == "short_conv":
        return _short_conv(fields, layers, hidden)
    if rule == "short_conv_windows":
        found = tuple(kind == "conv" for kind in kinds_beside_convolutions(fields, layers))
        return _convolutions(fields, found, hidden, 7)
    if rule == "apart":
        return _olmo(fields, layers, hidden)
    if rule in ("kimi", "glm"):
        return _kimi(fields, layers, rule == "glm")
    if rule == "bailing":
        return _bailing(fields, layers)
    is_joined = rule == "joined"
    k_heads = fields.integer("linear_num_key_heads", 1, _MAX_HEADS, default=16)
    v_heads = fields.integer("linear_num_value_heads", 1, _MAX_HEADS, default=32)
    if v_heads % k_heads:
        fields.fail("linear_num_value_heads", v_heads, f"must be a multiple of linear_num_key_heads={k_heads}")
    interval = fields.integer("full_attention_interval", 1, 2**12, default=4)
    by_interval = tuple(i % 5 in (0, 2) if is_joined else bool((i + 1) % interval) for i in range(layers))
    return GatedDeltaSettings(
        _layers(fields, "linear_attention", by_interval, ("full_attention", *_OTHERS.get(rule, ()))),
        k_heads,
        v_heads,
        fields.integer("linear_key_head_dim", 1, MAX_DIM, default=128),
        fields.integer("linear_value_head_dim", 1, MAX_DIM, default=128),
        fields.integer("linear_conv_kernel_dim", 2, MAX_CONV_WIDTH, default=4),
        rule == "by_head",
        lies_joined=is_joined,
        gate=_gate(fields) if rule == "qwen4" else "silu",
    )


def _gate(fields: Fields) -> str:
    kind = fields.one_of("output_gate_type", ("silu", "sigmoid"), "silu")
    return kind


def _convolved(fields: Fields, layers: int, hidden: int) -> ConvolvedSettings:
    heads = fields.integer("num_attention_heads", 1, _MAX_HEADS)
    kv_heads = fields.integer("num_key_value_heads", 1, _MAX_HEADS)
    dim = fields.integer("head_dim", 2, MAX_DIM, default=128)
    if kv_heads * dim % 2:
        fields.fail("num_key_value_heads", kv_heads, "must have an even number of channels: half are a position's own")
    first = fields.integer("cca_time0", 2, MAX_CONV_WIDTH, default=2)
    second = fields.integer("cca_time1", 1, MAX_CONV_WIDTH - first + 1, default=2)
    width = fields.integer("router_hidden_size", 1, 2**20, default=256)
    return ConvolvedSettings((True,) * layers, (heads + kv_heads) * dim, kv_heads * dim // 2, first, second, width)


def _olmo(fields: Fields, layers: int, hidden: int) -> GatedDeltaSettings:
    """Of OLMo Hybrid; sizes follow from those of attention where they are not said."""
    heads = fields.integer("num_attention_heads", 1, _MAX_HEADS)
    k_heads, v_heads = (
        fields.integer(f"linear_num_{of}_heads", 1, _MAX_HEADS, default=heads) for of in ("key", "value")
    )
    if v_heads != k_heads:
        fields.unsupported("linear_num_value_heads", v_heads, f"it must be linear_num_key_heads={k_heads}")
    k_dim = fields.integer("linear_key_head_dim", 1, MAX_DIM, default=3 * hidden // (4 * k_heads) or None)
    found = tuple(bool((i + 1) % 4) for i in range(layers))
    return GatedDeltaSettings(
        _layers(fields, "linear_attention", found if not all(found) else (*found[:-1], False)),
        k_heads,
        v_heads,
        k_dim,
        fields.integer("linear_value_head_dim", 1, MAX_DIM, default=2 * k_dim),
        fields.integer("linear_conv_kernel_dim", 2, MAX_CONV_WIDTH, default=4),
        lies_by_head=False,
        lies_apart=True,
        learns_twice=fields.flag("linear_allow_neg_eigval", True),
    )


def _kimi(fields: Fields, layers: int, is_glm: bool = False) -> GatedDeltaSettings:
    """Of Kimi Linear: in a table as published, where layers are counted from one, or as transformers saves them. Of
    GLM-5.3 rates are held above a bound, but where it is said that there is none.

    Raises: UnsupportedModel for a key of the table that is not known.
    """
    table = fields.table("linear_attn_config")
    found = tuple(layer % 4 != 3 if is_glm else not layer or bool(layer % 4) for layer in range(layers))
    of_table = Fields(table or {}, f"{fields.where}: linear_attn_config")
    if table is not None and not (is_glm and not of_table.has("kda_layers")):
        found = _counted_from_one(of_table, layers)

    def said(key: str, other: str, low: int, high: int, default: int) -> int:
        number = fields.integer(other, low, high, default=of_table.integer(key, low, high, default=default))
        if of_table.has(key) and of_table.raw(key) != number:
            fields.fail(other, number, f"contradicts {key}={of_table.raw(key)} of linear_attn_config")
        return number

    count = said("num_heads", "linear_num_heads", 1, _MAX_HEADS, 64 if is_glm else 32)
    size = said("head_dim", "linear_head_dim", 1, MAX_DIM, 128)
    conv = said("short_conv_kernel_size", "linear_conv_kernel_dim", 2, MAX_CONV_WIDTH, 4)
    most = _bound_of_glm(fields, of_table, table is not None) if is_glm else 0.0
    of_table.refuse_unread((), {})
    return GatedDeltaSettings(
        _layers(fields, "linear_attention", found, ("full_attention", "indexed_attention")[: 2 if is_glm else 1]),
        count,
        count,
        size,
        size,
        conv,
        lies_by_head=False,
        lies_apart=True,
        most_decay=most,
    )


def _bound_of_glm(fields: Fields, table: Fields, is_there: bool) -> float:
    """How much is taken at most; 0: there is no bound. What is null is none; or -5, if a table says nothing."""
    bound = fields.optional_number("linear_lower_bound", -1e3, -1e-3)
    if not fields.has("linear_lower_bound"):
        bound = -5.0
    if table.has("gate_lower_bound"):
        bound = table.optional_number("gate_lower_bound", -1e3, -1e-3)
    if table.flag("safe_gate", is_there) and bound is None:
        bound = -5.0
    return -(bound or 0.0)


def _bailing(fields: Fields, layers: int) -> GatedDeltaSettings:
    """Of Ling 3: sizes as published, or, first, as transformers saves them, where head_dim is another one."""

    def said(key: str, other: str, low: int, high: int, default: int | None = None) -> int:
        return fields.integer(key, low, high, default=fields.integer(other, low, high, default=default))

    heads = said("linear_num_heads", "num_attention_heads", 1, _MAX_HEADS)
    size = said("linear_head_dim", "head_dim", 1, MAX_DIM, 128)
    conv = said("linear_conv_kernel_dim", "short_conv_kernel_size", 2, MAX_CONV_WIDTH, 4)
    group = fields.integer("layer_group_size", 1, 2**12, default=6)
    found = _layers(fields, "linear_attention", tuple(bool((i + 1) % group) for i in range(layers)))
    is_bounded = fields.flag("kda_safe_gate", True)
    most = -fields.number("kda_lower_bound", -1e3, -1e-3, default=-5.0)
    return GatedDeltaSettings(
        *(found, heads, heads, size, size, conv),
        lies_by_head=False,
        lies_apart=True,
        most_decay=most if is_bounded else 0.0,
    )


def _counted_from_one(fields: Fields, layers: int) -> tuple[bool, ...]:
    """Which layers keep a state, of two lists that name each layer once."""
    of_states, others = (fields.raw(key) or [] for key in ("kda_layers", "full_attn_layers"))
    is_list = isinstance(of_states, list) and isinstance(others, list)
    if not is_list or any(type(i) is not int for i in (*of_states, *others)):
        fields.fail("kda_layers", of_states, "must be a list of layers, and so must full_attn_layers")
    if sorted((*of_states, *others)) != list(range(1, layers + 1)):
        fields.fail("kda_layers", of_states, f"and full_attn_layers={others} must name each of {layers} layers once")
    return tuple(layer + 1 in of_states for layer in range(layers))


def _short_conv(fields: Fields, layers: int, hidden: int) -> ShortConvSettings | None:
    """Layers as layer_types says, else all but those of full_attn_idxs."""
    attending = fields.raw("full_attn_idxs")
    if attending is None:
        attending = list(range(layers))
    if not isinstance(attending, list) or not all(type(i) is int and 0 <= i < layers for i in attending):
        fields.fail("full_attn_idxs", attending, f"must be a list of layers, from 0 to {layers - 1}")
    found = _layers(fields, "conv", tuple(i not in attending for i in range(layers)))
    return _convolutions(fields, found, hidden, 3)


def _convolutions(fields: Fields, found: tuple[bool, ...], hidden: int, width: int) -> ShortConvSettings | None:
    """Args: found: of each layer, whether it has one. width: where the file does not say."""
    width = fields.integer("conv_L_cache", 2, MAX_CONV_WIDTH, default=width)
    has_bias = fields.flag("conv_bias", False)
    return ShortConvSettings(found, hidden, width, has_bias) if any(found) else None


def _layers(
    fields: Fields, kind: str, default: tuple[bool, ...], others: tuple[str, ...] = ("full_attention",)
) -> tuple[bool, ...]:
    """Which layers keep a state: as layer_types says, else default, which was said in other words.

    Args: kind: what such a layer is called there. others: what those with attention are.
    """
    kinds = layer_kinds(fields, len(default), (kind, *others))
    return tuple(each == kind for each in kinds) or default
