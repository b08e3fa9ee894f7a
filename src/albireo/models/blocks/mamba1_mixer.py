"""Mamba 1 layers as graph-building functions.

Called by the architecture files. Uses the parts of layers.py. The convolution and the recurrence are float32
throughout, and are rounded once, before the output projection; of the states nothing is rounded. What b, c and how long
a token counts are made of is rounded as what other linears read.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import Ends, embedding, head, linear, norm
from albireo.models.config import ModelConfig
from albireo.models.settings.mamba1_settings import Mamba1Settings

_ENDS = Ends("backbone.embeddings.weight", "backbone.norm_f", "lm_head")


def mamba1_decoder(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model whose layers are nothing else, which is the same for sequences of any length."""
    b = GraphBuilder()
    x = embedding(b, config, _ENDS)
    for layer in range(config.num_layers):
        name = f"backbone.layers.{layer}"
        x = mamba1_block(b, config, x, layer, f"{name}.norm.weight", f"{name}.mixer")
    return head(b, config, x, _ENDS)


def mamba1_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, of_norm: str, name: str) -> Value:
    """x + what a layer makes of norm(x), [T, E] float32. Args: of_norm: its weight. name: of what tensors lie in."""
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, of_norm, "norm")
        y = _mixer(b, c, h, name)
        with b.part("out"):
            return b.add(x, y)


def _mixer(b: GraphBuilder, c: ModelConfig, h: Value, name: str) -> Value:
    """[T, E] float32: what a layer makes of the rounded rows h."""
    m = c.recurrent
    assert isinstance(m, Mamba1Settings), "the architecture's rules name its keys"
    values, z = (_rows(b, c, h, name, "in_proj", part, at * m.width, m.width) for at, part in enumerate(("x", "z")))
    with b.part("conv"):
        weight = b.weight(f"{name}.conv1d.weight", (m.width, m.conv_width), "float32")
        bias = b.weight(f"{name}.conv1d.bias", (m.width,), "float32") if m.has_conv_bias else None
        mixed = b.causal_conv(values, weight, bias)
        rounded = b.cast(mixed, c.dtype)
    low = _normed(b, c, _rows(b, c, rounded, name, "x_proj", "rank", 0, m.rank), name, ("dt",))
    bc = _normed(b, c, _rows(b, c, rounded, name, "x_proj", "bc", m.rank, 2 * m.state_size), name, ("b", "c"))
    with b.part("rank"):
        low = b.cast(low, c.dtype)
    dt = linear(b, c, low, f"{name}.dt_proj", m.width, "dt", False, "router")
    with b.part("state"):
        a_log = b.weight(f"{name}.A_log", (m.width, m.state_size), "float32")
        vectors = (b.weight(f"{name}.{part}", (m.width,), "float32") for part in ("dt_proj.bias", "D"))
        y = b.selective_scan(mixed, dt, bc, a_log, *vectors)
    with b.part("gate"):
        y = b.cast(b.mul(y, b.unary(z, "silu")), c.dtype)
    return linear(b, c, y, f"{name}.out_proj", c.hidden_size, "out", m.has_bias, None)


def _rows(
    b: GraphBuilder, c: ModelConfig, x: Value, name: str, module: str, part: str, first: int, count: int
) -> Value:
    """Rows of a linear; those of x_proj stay numbers, as a router's do."""
    assert isinstance(c.recurrent, Mamba1Settings)
    made_of, is_first = RowsOf(f"{name}.{module}", ((first, first + count),)), module == "in_proj"
    has_bias, role = is_first and c.recurrent.has_bias, None if is_first else "router"
    return linear(b, c, x, f"{name}.{module}.{part}", count, part, has_bias, role, made_of)


def _normed(b: GraphBuilder, c: ModelConfig, x: Value, name: str, parts: tuple[str, ...]) -> Value:
    """The parts of x, side by side, each normed where the model does that."""
    m = c.recurrent
    assert isinstance(m, Mamba1Settings)
    if m.norms == "none":
        return x
    with b.part(f"{''.join(parts)}_norm"):
        weight, width = None, int(x.type.dims[-1])
        if m.norms == "weighed":
            each = width // len(parts)
            segments = tuple(RowSegment(f"{name}.{part}_layernorm.weight", 0, each) for part in parts)
            weight = b.weight(f"{name}.{''.join(parts)}_layernorm.weight", (width,), "float32", segments=segments)
        eps = c.rms_norm_eps if m.norm_eps is None else m.norm_eps
        return b.rms_norm(x, weight, eps, num_heads=len(parts))
