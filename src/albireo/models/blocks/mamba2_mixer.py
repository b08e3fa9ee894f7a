"""Mamba 2 layers as graph-building functions.

Called by the architecture files. Uses the parts of layers.py. The convolution, the recurrence and the norm behind it
are float32 throughout, and are rounded once, before the output projection; of the states nothing is rounded.
"""

from __future__ import annotations

import math
from typing import Any

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import linear, norm
from albireo.models.config import ModelConfig
from albireo.models.settings.mamba_settings import MambaSettings


def mamba_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    """x + what a layer makes of norm(x), of layers called as llama's, [T, E] float32."""
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
        y = mamba_mixer(b, c, h, f"model.layers.{layer}.mamba")
        with b.part("out"):
            return b.add(x, y)


def mamba_mixer(b: GraphBuilder, c: ModelConfig, h: Value, name: str) -> Value:
    """[T, E] float32: what a layer makes of the rounded rows h. Args: name: of what its tensors lie in."""
    m = c.recurrent
    assert isinstance(m, MambaSettings), "the architecture's rules name its keys"
    of_gate, *of_mixed, of_dt = m.factors
    z = _scaled(b, _linear(b, c, h, name, m, "z", 0, m.width), "z", of_gate)
    xbc = _mixed(b, c, h, name, m, of_mixed)
    dt = _scaled(b, _dt(b, c, h, name, m), "dt", of_dt)
    with b.part("conv"):
        weight = b.weight(f"{name}.conv1d.weight", (m.channels, m.conv_width), "float32")
        bias = b.weight(f"{name}.conv1d.bias", (m.channels,), "float32") if m.has_conv_bias else None
        mixed = b.causal_conv(xbc, weight, bias)
    with b.part("state"):
        vectors = (b.weight(f"{name}.{part}", (m.heads,), "float32") for part in ("A_log", "dt_bias", "D"))
        y = b.selective_state(mixed, dt, *vectors, **_shape(m))
    with b.part("out_norm"):
        y = b.cast(_gated(b, c, y, z, name, m), c.dtype)
    return linear(b, c, y, f"{name}.out_proj", c.hidden_size, "out", m.has_bias, None)


def _gated(b: GraphBuilder, c: ModelConfig, y: Value, z: Value, name: str, m: MambaSettings) -> Value:
    """What is read of the states times silu(z), and its norm, where there is one."""
    if not m.has_norm:
        y = b.mul(y, b.unary(z, "silu"))
        return y if m.out_factor == 1.0 else b.scale(y, m.out_factor)
    weight = b.weight(f"{name}.norm.weight", (m.width,), "float32", factor=m.out_factor)
    eps = c.rms_norm_eps if m.norm_eps is None else m.norm_eps
    if m.norms_first:
        return b.mul(b.rms_norm(y, weight, eps, num_heads=m.groups), b.unary(z, "silu"))
    return b.rms_norm(b.mul(y, b.unary(z, "silu")), weight, eps, num_heads=m.groups)


def _mixed(b: GraphBuilder, c: ModelConfig, h: Value, name: str, m: MambaSettings, factors: list[float]) -> Value:
    """Values, b and c, side by side: one linear, or one of each where each has a factor of its own."""
    if len(set(factors)) == 1:
        return _scaled(b, _linear(b, c, h, name, m, "xbc", m.width, m.channels), "xbc", factors[0])
    of_keys = m.groups * m.state_size
    parts, first = [], m.width
    for part, rows, factor in zip(("values", "keys", "queries"), (m.width, of_keys, of_keys), factors, strict=True):
        parts.append(_scaled(b, _linear(b, c, h, name, m, part, first, rows), part, factor))
        first += rows
    with b.part("xbc"):
        return b.join_heads(b.join_heads(parts[0], parts[1], 1), parts[2], 1)


def _linear(
    b: GraphBuilder, c: ModelConfig, h: Value, name: str, m: MambaSettings, part: str, first: int, count: int
) -> Value:
    """Rows of in_proj."""
    rows = _rows(name, first, first + count)
    return linear(b, c, h, f"{name}.in_proj.{part}", count, part, m.has_bias, None, rows)


def _scaled(b: GraphBuilder, x: Value, part: str, factor: float) -> Value:
    if factor == 1.0:
        return x
    with b.part(part):
        return b.scale(x, factor)


def _shape(m: MambaSettings) -> dict[str, Any]:
    """Attributes of selective_state."""
    limits = {"dt_least": m.dt_limits[0], "dt_most": m.dt_limits[1]}
    shape = {"num_k_heads": m.groups, "num_v_heads": m.heads, "k_dim": m.state_size, "v_dim": m.head_dim}
    return shape | {key: limit for key, limit in limits.items() if limit not in (0.0, math.inf)}


def _dt(b: GraphBuilder, c: ModelConfig, h: Value, name: str, m: MambaSettings) -> Value:
    """[T, heads]: a linear whose weights stay numbers, as a router's do."""
    first = m.width + m.channels
    return linear(
        b, c, h, f"{name}.in_proj.dt", m.heads, "dt", m.has_bias, "router", _rows(name, first, first + m.heads)
    )


def _rows(name: str, first: int, last: int) -> RowsOf:
    return RowsOf(f"{name}.in_proj", ((first, last),))
