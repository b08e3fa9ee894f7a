"""Feed-forward networks of a decoder's layers, with a gate and without one, as graph-building functions.

Called by the architecture files, and by experts.py for one expert that all tokens have. As in layers.py, what a matrix
is multiplied with is of the compute dtype, and what it gives is float32.
"""

from __future__ import annotations

from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import Norms, added, block_input, linear
from albireo.models.config import ModelConfig


class FFNNames(NamedTuple):
    """What an architecture calls an FFN within its layer, and its linears; gate empty: there is none."""

    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"


LLAMA_FFN = FFNNames()
#: What an FFN reads is normed; both are; what it adds is.
BEFORE_FFN = Norms("post_attention_layernorm")
AROUND_FFN = Norms("pre_feedforward_layernorm", "post_feedforward_layernorm")
BEHIND_FFN = Norms(None, "post_feedforward_layernorm")
#: OpenAI's first approximation of gelu, which is several ops here.
QUICK_GELU = "quick_gelu"


def mlp_block(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    layer: int,
    *,
    joined: str | None = None,
    norms: Norms = BEFORE_FFN,
    names: FFNNames = LLAMA_FFN,
    cut: float | None = None,
) -> Value:
    """x + down(act(gate(h)) * up(h)) with h = norm(x), of one layer, [T, E] float32; without a gate down(act(up(h))).

    Args: joined: name of the tensor that holds the rows of gate and up, where one does. cut: of a gate counts what is
        so many standard deviations above its mean.
    """
    name, bias = f"model.layers.{layer}.{names.block}", c.mlp_bias
    with b.part(f"layers.{layer}.mlp"):
        h = block_input(b, c, x, layer, norms.before)
        if names.gate:
            width = c.ffn_width(layer)
            down = gated_mlp(b, c, h, name, width, bias=bias, joined=joined, names=names, cut=cut)
        else:
            down = plain_mlp(b, c, h, name, c.ffn_width(layer), bias=bias, up=names.up, down=names.down)
        return added(b, c, x, down, layer, "down", norms.behind)


def gated_mlp(
    b: GraphBuilder,
    c: ModelConfig,
    h: Value,
    name: str,
    width: int,
    *,
    bias: bool = False,
    down_bias: bool = False,
    joined: str | None = None,
    names: FFNNames = LLAMA_FFN,
    cut: float | None = None,
    limit: float = 0.0,
    is_late: bool = False,
) -> Value:
    """down(act(gate(h)) * up(h)) of width channels, [T, E] float32.

    Args: bias: of all three; down_bias: of the last alone. joined, cut: see mlp_block(). limit: of gates, above, and of
        ups on both sides; 0: none. is_late: see gated()."""
    parts = {}
    for place, (p, called) in enumerate((("gate", names.gate), ("up", names.up))):
        rows = RowsOf(f"{name}.{joined}", ((place * width, (place + 1) * width),)) if joined else None
        parts[p] = linear(b, c, h, f"{name}.{called}", width, p, bias, "ffn", rows)
    with b.part("act"):
        gate = parts["gate"] if cut is None else b.cut(parts["gate"], cut)
        m = b.cast(gated(b, c, gate, parts["up"], limit, is_late), c.dtype)
    return linear(b, c, m, f"{name}.{names.down}", c.hidden_size, "down", bias or down_bias, "row")


def gated(b: GraphBuilder, c: ModelConfig, gate: Value, up: Value, limit: float, is_late: bool) -> Value:
    """act(gate) * up, float32. Args: limit: of gates, above, and of ups on both sides; 0: none. is_late: gates are kept
    within it behind their activation."""
    if limit and not is_late:
        gate, up = b.clip(gate, limit, above=True), b.clip(up, limit)
    if c.hidden_act == "clamped_swiglu":
        return b.clamped_swiglu(gate, up)
    gate = b.unary(gate, c.hidden_act)
    if limit and is_late:
        gate, up = b.clip(gate, limit, above=True), b.clip(up, limit)
    return b.mul(gate, up)


def activated(b: GraphBuilder, x: Value, act: str) -> Value:
    """act(x), float32. Args: act: one of op_numbers.UNARY_KINDS, or quick_gelu: x * sigmoid(1.702 x)."""
    return b.mul(x, b.unary(b.scale(x, 1.702), "sigmoid")) if act == QUICK_GELU else b.unary(x, act)


def plain_mlp(
    b: GraphBuilder, c: ModelConfig, h: Value, name: str, width: int, *, bias: bool = False, up: str, down: str
) -> Value:
    """down(act(up(h))) of width channels, [T, E] float32. Args: up, down: modules behind name."""
    m = linear(b, c, h, f"{name}.{up}", width, "up", bias, "ffn")
    with b.part("act"):
        m = b.cast(activated(b, m, c.hidden_act), c.dtype)
    return linear(b, c, m, f"{name}.{down}", c.hidden_size, "down", bias, "row")
