"""A layer's mixture of experts as graph-building functions.

Called by the architecture files. The router's logits are those of an ordinary linear over the same rounded rows that
the experts read; experts' matrices are one constant, one below the other.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.blocks.feed_forward import FFNNames, gated, gated_mlp, mlp_block
from albireo.models.blocks.layers import Norms, added, block_input, linear, norm
from albireo.models.config import ModelConfig


@dataclass(frozen=True, slots=True)
class Names:
    """What an architecture calls its parts: the block within a layer, gate (empty: there is none), up and down of an
    expert (and of an FFN in place of experts), the router, the bias of a choice, the gain of weights, the expert that
    every token has; the norm of what the block reads; and what the bias lies in, if not in the block."""

    block: str = "mlp"
    gate: str = "gate_proj"
    up: str = "up_proj"
    down: str = "down_proj"
    router: str = "gate"
    bias: str = "gate.e_score_correction_bias"
    gain: str = ""
    shared: str = "shared_expert"
    norm: str = "post_attention_layernorm"
    bias_block: str = ""


QWEN = Names()
DEEPSEEK = Names(shared="shared_experts")


def moe_block(
    b: GraphBuilder, c: ModelConfig, x: Value, layer: int, names: Names = QWEN, *, bias: bool = False
) -> Value:
    """x + the weighed sum of what a token's experts make of norm(x) (+ the shared expert's), of one layer, [T, E]
    float32; x + an ordinary MLP where the layer has no experts.

    Args: bias: of the router and of experts.
    """
    settings = c.experts
    assert settings is not None, "the architecture's rules name the keys of experts"
    if not settings.layers[layer]:
        ffn = FFNNames(names.block, names.gate, names.up, names.down)
        return mlp_block(b, c, x, layer, norms=Norms(names.norm), names=ffn)
    name = f"model.layers.{layer}.{names.block}"
    with b.part(f"layers.{layer}.moe"):
        h = norm(b, c, x, f"model.layers.{layer}.{names.norm}.weight", "norm")
        return with_experts(b, c, x, h, name, names, bias=bias)


def with_experts(
    b: GraphBuilder, c: ModelConfig, x: Value, h: Value, name: str, names: Names, *, bias: bool = False
) -> Value:
    """x + what a token's experts, and the shared one, make of h. Args: name: of the block."""
    ids, weights = route(b, c, h, name, names, bias=bias)
    pairs = experts(b, c, h, ids, f"{name}.experts", names, bias=bias)
    with b.part("combine"):
        x = b.add(x, b.combine(pairs, weights))
    has_shared = c.experts is not None and c.experts.shared_width
    return _with_shared_expert(b, c, x, h, f"{name}.{names.shared}") if has_shared else x


def normed_moe_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, names: Names, norms: Norms) -> Value:
    """x + norm(what a token's experts and the shared one make of norm(x), or of x), of one layer, [T, E] float32; or
    what an ordinary MLP does, where the layer has no experts. Args: norms: in place of names.norm."""
    settings, name = c.experts, f"model.layers.{layer}"
    assert settings is not None and norms.behind is not None
    if not settings.layers[layer]:
        return mlp_block(b, c, x, layer, norms=norms)
    with b.part(f"layers.{layer}.moe"):
        h = block_input(b, c, x, layer, norms.before)
        y = mixture(b, c, h, f"{name}.{names.block}", names)
        return added(b, c, x, y, layer, "combine", norms.behind)


def mixture(b: GraphBuilder, c: ModelConfig, h: Value, name: str, names: Names, table: str = "") -> Value:
    """What a token's experts and the shared one make of h, [T, E] float32. Args: name: of the
    block. table: of tokens, which says what experts each has; empty: they are chosen."""
    settings = c.experts
    assert settings is not None
    ids, weights = route(b, c, h, name, names, table=table)
    pairs = experts(b, c, h, ids, f"{name}.experts", names)
    with b.part("combine"):
        y = b.combine(pairs, weights)
    if not settings.shared_width:
        return y
    with b.part("shared"):
        shared = gated_mlp(
            *(b, c, h, f"{name}.{names.shared}", settings.shared_width),
            limit=settings.shared_limit,
            is_late=settings.is_late,
        )
        if settings.is_shared_gated:
            gate = linear(b, c, h, f"{name}.{names.shared}_gate", 1, "weight", False, "router")
            shared = b.gate_rows(shared, gate)
        return b.add(shared, y)


def route(
    b: GraphBuilder, c: ModelConfig, h: Value, name: str, names: Names, *, bias: bool = False, table: str = ""
) -> tuple[Value, Value]:
    """ids [T, k] int32 and weights [T, k] float32 of a token's experts. Args: name: of what the router lies in. table:
    see mixture()."""
    settings = c.experts
    assert settings is not None
    choices = settings.count + settings.giving_back
    logits = linear(b, c, h, f"{name}.{names.router}", choices, "router", bias, "router")
    with b.part("route"):
        logits = b.softcap(logits, settings.logits_cap) if settings.logits_cap else logits
        if table:
            numbers = b.weight(f"{name}.{table}", (c.vocab_size, settings.top_k), "float32")
            of_token = b.embed(b.token_ids, numbers, never_given=True)
            return b.route(logits, settings.top_k, settings.renormalize, chosen=of_token, **settings.rules)
        of_bias = f"{name.removesuffix(names.block)}{names.bias_block}" if names.bias_block else name
        added, gain = (
            b.weight(vector, (choices,), "float32") if has_vector else None
            for vector, has_vector in (
                (f"{of_bias}.{names.bias}", settings.has_bias),
                (f"{name}.{names.gain}", settings.has_gain),
            )
        )
        return b.route(logits, settings.top_k, settings.renormalize, added, gain, **settings.rules)


def experts(
    b: GraphBuilder, c: ModelConfig, h: Value, ids: Value, name: str, names: Names, *, bias: bool = False
) -> Value:
    """[P, channels of h] float32: what each expert of each token makes of its row of h. Args: name: of what the experts
    lie in."""
    settings, channels = c.experts, h.type.dims[-1]
    assert settings is not None and isinstance(channels, int)
    with b.part("experts"):
        gate = _experts(b, c, h, ids, name, names.gate, settings.width, "gate", "ffn", bias) if names.gate else None
        up = _experts(b, c, h, ids, name, names.up, settings.width, "up", "ffn", bias)
        with b.part("act"):
            m = b.cast(_act(b, c, gate, up), c.dtype)
        return _experts(b, c, m, ids, name, names.down, channels, "down", "row", bias)


def _act(b: GraphBuilder, c: ModelConfig, gate: Value | None, up: Value) -> Value:
    if gate is None:
        return b.unary(up, c.hidden_act)
    assert c.experts is not None
    return gated(b, c, gate, up, c.experts.limit, c.experts.is_late)


def _experts(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    ids: Value,
    name: str,
    matrix: str,
    rows: int,
    part: str,
    role: str,
    has_bias: bool,
) -> Value:
    assert c.experts is not None
    with b.part(part):
        columns = x.type.dims[-1]
        assert isinstance(columns, int)
        modules = [f"{name}.{i}.{matrix}" for i in range(c.experts.count)]
        sources = tuple(f"{module}.weight" for module in modules)
        weight, bias = b.experts(sources, f"{name}.{matrix}.weight", (rows, columns), c.dtype), None
        if has_bias:
            sources = tuple(f"{module}.bias" for module in modules)
            bias = b.experts(sources, f"{name}.{matrix}.bias", (rows,), "float32")
        return b.expert_linear(x, ids, weight, c.experts.count, role, bias)


def _with_shared_expert(b: GraphBuilder, c: ModelConfig, x: Value, h: Value, name: str) -> Value:
    assert c.experts is not None
    with b.part("shared"):
        shared = gated_mlp(b, c, h, name, c.experts.shared_width)
        if c.experts.shared_factor != 1.0:
            shared = b.scale(shared, c.experts.shared_factor)
        if not c.experts.is_shared_gated:
            return b.add(x, shared)
        gate = linear(b, c, h, f"{name}_gate", 1, "weight", False, "router")
        return b.add(x, b.gate_rows(shared, gate))
