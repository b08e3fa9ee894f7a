"""A layer's gated delta rule, in place of attention, as graph-building functions.

Called by the architecture files. Uses the parts of layers.py. What the recurrence computes is float32 throughout, and is
rounded once, before the output projection; of the states that it keeps nothing is rounded.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import RowSegment, Value
from albireo.models.config import ModelConfig
from albireo.models.layers import linear, norm
from albireo.models.recurrent_settings import RecurrentSettings


def gated_delta_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    """x + what the recurrence makes of norm(x), of one layer, [T, E] float32."""
    r = c.recurrent
    assert r is not None, "the architecture's rules name its keys"
    name, width = f"model.layers.{layer}.linear_attn", r.v_heads * r.v_dim
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
        qkv = linear(b, c, h, f"{name}.in_proj_qkv", r.channels, "qkv", False, None)
        z = linear(b, c, h, f"{name}.in_proj_z", width, "z", False, None)
        gates = _gates(b, c, h, name, r)
        with b.part("conv"):
            weight = b.weight(f"{name}.conv1d.weight", (r.channels, r.conv_width), "float32")
            mixed = b.causal_conv(qkv, weight)
        with b.part("delta_rule"):
            a_log, dt_bias = (b.weight(f"{name}.{part}", (r.v_heads,), "float32") for part in ("A_log", "dt_bias"))
            shape = {"num_k_heads": r.k_heads, "num_v_heads": r.v_heads, "k_dim": r.k_dim, "v_dim": r.v_dim}
            y = b.gated_delta_rule(mixed, gates, a_log, dt_bias, **shape)
        with b.part("out_norm"):
            weight = b.weight(f"{name}.norm.weight", (r.v_dim,), "float32")
            y = b.rms_norm(y, weight, c.rms_norm_eps, num_heads=r.v_heads)
            y = b.cast(b.mul(y, b.unary(z, "silu")), c.dtype)
        out = linear(b, c, y, f"{name}.out_proj", c.hidden_size, "out", False, None)
        with b.part("out"):
            return b.add(x, out)


def _gates(b: GraphBuilder, c: ModelConfig, h: Value, name: str, r: RecurrentSettings) -> Value:
    """b, then a, [T, 2 * heads]: one linear of the rows of two, whose weights stay numbers, as a router's do."""
    with b.part("gates"):
        segments = tuple(RowSegment(f"{name}.in_proj_{part}.weight", 0, r.v_heads) for part in "ba")
        weight = b.weight(f"{name}.in_proj_b+a.weight", (2 * r.v_heads, c.hidden_size), c.dtype, segments=segments)
        return b.linear(h, weight, role="router")
