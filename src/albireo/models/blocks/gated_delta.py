"""Layers that keep a state by the gated delta rule, beside layers with attention, as graph-building functions.

Called by the architecture files. Uses the parts of layers.py. What the recurrence computes is float32 throughout, and
is rounded once, before the output projection; of the states that it keeps nothing is rounded.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import moe_block
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.head_rows import RowsOf, RowsOfSeveral
from albireo.models.blocks.layers import linear, norm
from albireo.models.config import ModelConfig
from albireo.models.settings.recurrent_settings import GatedDeltaSettings


class ChannelNames(NamedTuple):
    """What an architecture with rates of channels calls the block within its layer, and the linear behind the
    recurrence; what gives rates and gates of values: two linears each, or one."""

    block: str
    out: str
    rates: tuple[str, ...]
    gates: tuple[str, ...]


KIMI = ChannelNames("self_attn", "o_proj", ("f_a_proj", "f_b_proj"), ("g_a_proj", "g_b_proj"))


class DeltaNames(NamedTuple):
    """What an architecture calls linears of gates, the norm behind the recurrence and the linear behind that."""

    z: str
    b: str
    a: str
    out_norm: str
    out: str


QWEN = DeltaNames("in_proj_z", "in_proj_b", "in_proj_a", "norm", "out_proj")


def hybrid_decoder(c: ModelConfig, max_model_len: int) -> Graph:
    """A model of such layers and of layers with attention, with experts or one FFN behind either."""
    ffn = mlp_block if c.experts is None else moe_block
    return decoder(c, max_model_len, ffn=ffn, state=gated_delta_block, qk_norm=True)


def gated_delta_block(
    b: GraphBuilder, c: ModelConfig, x: Value, layer: int, names: DeltaNames = QWEN, eps: float | None = None
) -> Value:
    """x + what the recurrence makes of norm(x), of one layer, [T, E] float32. Args: eps: see gated_delta()."""
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
        out = gated_delta(b, c, h, layer, names, eps)
        with b.part("out"):
            return b.add(x, out)


def gated_delta(
    b: GraphBuilder, c: ModelConfig, h: Value, layer: int, names: DeltaNames = QWEN, eps: float | None = None
) -> Value:
    """What the recurrence makes of h, [T, E] float32. Args: h: rounded. eps: of the norm behind it; None: that of
    others."""
    r = c.recurrent
    assert isinstance(r, GatedDeltaSettings), "the architecture's rules name its keys"
    name, width = f"model.layers.{layer}.linear_attn", r.v_heads * r.v_dim
    qkv = linear(b, c, h, f"{name}.in_proj_qkv", r.channels, "qkv", False, None, _rows(r, name, "qkv", names))
    z = linear(b, c, h, f"{name}.{names.z}", width, "z", False, None, _rows(r, name, "z", names))
    gates = _gates(b, c, h, name, r, names)
    with b.part("conv"):
        weight = b.weight(f"{name}.conv1d.weight", (r.channels, r.conv_width), "float32")
        mixed = b.causal_conv(qkv, weight)
    with b.part("delta_rule"):
        a_log, dt_bias = (b.weight(f"{name}.{part}", (r.v_heads,), "float32") for part in ("A_log", "dt_bias"))
        shape: dict[str, Any] = {
            "num_k_heads": r.k_heads,
            "num_v_heads": r.v_heads,
            "k_dim": r.k_dim,
            "v_dim": r.v_dim,
        }
        shape |= {"learns_twice": True} if r.learns_twice else {}
        y = b.gated_delta_rule(mixed, gates, a_log, dt_bias, **shape)
    with b.part("out_norm"):
        weight = b.weight(f"{name}.{names.out_norm}.weight", (r.v_dim,), "float32")
        y = b.rms_norm(y, weight, c.rms_norm_eps if eps is None else eps, num_heads=r.v_heads)
        y = b.cast(b.mul(y, b.unary(z, r.gate)), c.dtype)
    return linear(b, c, y, f"{name}.{names.out}", c.hidden_size, "out", False, None)


def channel_delta_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, names: ChannelNames = KIMI) -> Value:
    """gated_delta_block() of Kimi Linear, Ling 3 and GLM-5.3; see channel_delta()."""
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
        out = channel_delta(b, c, h, layer, names)
        with b.part("out"):
            return b.add(x, out)


def channel_delta(b: GraphBuilder, c: ModelConfig, h: Value, layer: int, names: ChannelNames = KIMI) -> Value:
    """gated_delta() with a rate of each channel of a key, and a gate of values that is a sigmoid."""
    r = c.recurrent
    assert isinstance(r, GatedDeltaSettings), "the architecture's rules name its keys"
    name, width = f"model.layers.{layer}.{names.block}", r.v_heads * r.v_dim
    rates = r.v_heads * r.k_dim
    qkv = linear(b, c, h, f"{name}.in_proj_qkv", r.channels, "qkv", False, None, _rows(r, name, "qkv", QWEN))
    # rates stay numbers, as those of heads do
    of_rates, of_gates = h, h
    if len(names.rates) == 2:
        of_rates = b.cast(linear(b, c, h, f"{name}.{names.rates[0]}", r.k_dim, "dt_low", False, "router"), c.dtype)
    dt = linear(b, c, of_rates, f"{name}.{names.rates[-1]}", rates, "dt", False, "router")
    gates = linear(b, c, h, f"{name}.b_proj", r.v_heads, "gates", False, "router")
    if len(names.gates) == 2:
        of_gates = b.cast(linear(b, c, h, f"{name}.{names.gates[0]}", r.v_dim, "z_low", False, None), c.dtype)
    z = linear(b, c, of_gates, f"{name}.{names.gates[-1]}", width, "z", False, None)
    with b.part("conv"):
        each = {"q": rates, "k": rates, "v": width}
        rows = RowsOfSeveral(tuple(RowsOf(f"{name}.{p}_conv1d", ((0, n),)) for p, n in each.items()))
        shape = (r.channels, r.conv_width)
        weight = b.weight(f"{name}.conv1d.weight", shape, "float32", segments=rows.segments("weight"))
        mixed = b.causal_conv(qkv, weight)
    with b.part("delta_rule"):
        a_log = b.weight(f"{name}.A_log", (r.v_heads,), "float32")
        dt_bias = b.weight(f"{name}.dt_bias", (rates,), "float32")
        heads: dict[str, Any] = {"num_k_heads": r.k_heads, "num_v_heads": r.v_heads}
        heads |= {"most_decay": r.most_decay} if r.most_decay else {}
        y = b.gated_delta_rule(mixed, gates, a_log, dt_bias, dt, **heads, k_dim=r.k_dim, v_dim=r.v_dim)
    with b.part("out_norm"):
        weight = b.weight(f"{name}.o_norm.weight", (r.v_dim,), "float32")
        y = b.rms_norm(y, weight, c.rms_norm_eps, num_heads=r.v_heads)
        y = b.cast(b.mul(y, b.unary(z, "sigmoid")), c.dtype)
    return linear(b, c, y, f"{name}.{names.out}", c.hidden_size, "out", False, None)


def _gates(b: GraphBuilder, c: ModelConfig, h: Value, name: str, r: GatedDeltaSettings, names: DeltaNames) -> Value:
    """b, then a, [T, 2 * heads]: one linear of the rows of two, whose weights stay numbers, as a router's do."""
    with b.part("gates"):
        segments = tuple(s for part in "ba" for s in _rows(r, name, part, names).segments("weight"))
        weight = b.weight(f"{name}.in_proj_b+a.weight", (2 * r.v_heads, c.hidden_size), c.dtype, segments=segments)
        return b.linear(h, weight, role="router")


def _rows(r: GatedDeltaSettings, name: str, part: str, names: DeltaNames) -> RowsOf | RowsOfSeveral:
    """Of queries, keys and values, of their gates z, or of b or a."""
    if r.lies_apart and part == "qkv":
        counts = {"q": r.k_heads * r.k_dim, "k": r.k_heads * r.k_dim, "v": r.v_heads * r.v_dim}
        return RowsOfSeveral(tuple(RowsOf(f"{name}.{p}_proj", ((0, count),)) for p, count in counts.items()))
    if r.lies_joined:
        joined, values = ("qkv", "z", "b", "a"), r.v_heads * r.v_dim
        ends = [0, *itertools.accumulate((r.channels, values, r.v_heads, r.v_heads))]
        at = joined.index(part)
        return RowsOf(f"{name}.in_proj", ((ends[at], ends[at + 1]),))
    if not r.lies_by_head:
        count = {"qkv": r.channels, "z": r.v_heads * r.v_dim}.get(part, r.v_heads)
        module = {"qkv": "in_proj_qkv", "z": names.z, "b": names.b, "a": names.a}[part]
        return RowsOf(f"{name}.{module}", ((0, count),))
    each = r.v_heads // r.k_heads
    module, widths = ("ba", [each, each]) if part in "ba" else ("qkvz", [r.k_dim, r.k_dim] + 2 * [each * r.v_dim])
    starts = [sum(widths[:i]) for i in range(len(widths))]
    places = {"qkv": (0, 1, 2), "z": (3,), "b": (0,), "a": (1,)}[part]
    firsts = [(key * sum(widths) + starts[place], widths[place]) for place in places for key in range(r.k_heads)]
    return RowsOf(f"{name}.in_proj_{module}", tuple((first, first + count) for first, count in firsts))
