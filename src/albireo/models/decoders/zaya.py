"""ZAYA1: attention whose queries and keys go through two convolutions of a few positions, and half of whose values are
those of the position before; one expert a token, or none, which a router says that remembers from layer to layer.

Source: Figliolia et al. 2025, Compressed convolutional attention.

q, k = h Wq, h Wk, side by side heads of queries: all first ones of a key, all second ones z = conv(q, k), channel by
channel, of cca_time0 positions y = conv(z), head by head, of cca_time1 positions a matrix for each position, of z as it
was so long ago m = (q + k of its group) / 2 for each query q, k = norm(y + m), norm(y + mean of m over a group) * temp
v = h Wv, and what another matrix gave of the position before
"""

from __future__ import annotations

from typing import NamedTuple

from albireo.errors import UnsupportedModel
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.experts import QWEN, experts
from albireo.models.blocks.head_rows import RowsOf, RowsOfSeveral, rows_of_heads
from albireo.models.blocks.layers import attention, embedding, head, linear, norm, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.checkpoint.positions_apart import ROTATIONS
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.recurrent_settings import ConvolvedSettings
from albireo.models.settings.rope_settings import MAX_POSITIONS
from albireo.models.settings.tiny import TINY_LLAMA

_SEEING_ALL, _SLIDING = "hybrid", "hybrid_sliding"
#: Three layers, one with a window; of seven classes of the router the last is no expert.
TINY = TINY_LLAMA | {
    "architectures": ["ZayaForCausalLM"],
    "model_type": "zaya",
    "vocab_size": 131,
    "hidden_size": 40,
    "num_hidden_layers": 3,
    "head_dim": 12,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "lm_head_bias": False,
    "layer_types": [_SEEING_ALL, _SLIDING, _SEEING_ALL],
    "sliding_window": 9,
    "rope_parameters": {
        _SEEING_ALL: {"rope_type": "default", "rope_theta": 5000000.0, "partial_rotary_factor": 0.5},
        _SLIDING: {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
    "num_experts": 6,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 36,
    "router_hidden_size": 20,
    "cca_time0": 2,
    "cca_time1": 2,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value."""
    layers = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    kinds = fields.texts("layer_types") or (_SEEING_ALL,) * layers
    if len(kinds) != layers or not set(kinds) <= {_SEEING_ALL, _SLIDING}:
        fields.fail("layer_types", list(kinds), f"must be {_SEEING_ALL} or {_SLIDING} for each of {layers} layers")
    window = fields.optional_integer("sliding_window", 1, MAX_POSITIONS)
    if window is None and _SLIDING in kinds:
        fields.fail("sliding_window", None, f"must be given, as of a layer that is {_SLIDING}")
    return BlockSettings(
        attends_everywhere=True,
        has_head_bias=fields.flag("lm_head_bias", False),
        layer_windows=tuple(window if kind == _SLIDING else None for kind in kinds),
    )


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    blocks=_blocks,
    experts="zaya",
    recurrent="convolved",
    has_local_rope=True,
    head_dim=128,
    ffn_factor=1,  # of no layer: all have experts
    defaults={
        "rms_norm_eps": 1e-5,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        **ROTATIONS,
    },
    ignorable=keys("auto_map"),
)


class _Rows(NamedTuple):
    """Of queries, where those of a key are as far apart as there are keys, and of keys; a head's channels in the order
    in which they are rotated."""

    queries: RowsOf
    keys: RowsOf

    def of(self, module: str) -> RowsOfSeveral:
        """The same of a module that has queries, then keys."""
        behind = sum(end - start for start, end in self.queries.ranges)
        apart = tuple((start + behind, end + behind) for start, end in self.keys.ranges)
        return RowsOfSeveral((RowsOf(module, self.queries.ranges), RowsOf(module, apart)))


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    local = c.rope if c.local_rope is None else c.local_rope
    if local.partial_rotary_factor != c.rope.partial_rotary_factor:
        raise UnsupportedModel(
            f"partial_rotary_factor={local.partial_rotary_factor} of layers with a window: it must be that of the "
            f"others, {c.rope.partial_rotary_factor}"
        )
    ropes = {is_local: rope_spec(c, max_model_len, is_local=is_local) for is_local in (False, True)}
    x, said = embedding(b, c), None
    with b.part("embed"):
        x = _scaled(b, c, x, "model.input_hidden_states")
    for layer, window in enumerate(windows(c, max_model_len)):
        x = _attention_block(b, c, x, layer, ropes[c.windows[layer] is not None], window)
        x, said = _mixture_block(b, c, x, layer, said)
    return head(b, c, x, has_bias=c.blocks.has_head_bias)


def _scaled(b: GraphBuilder, c: ModelConfig, x: Value, name: str) -> Value:
    """(x + bias) * scale, channel by channel."""
    bias, scale = (b.weight(f"{name}_{each}", (c.hidden_size,), "float32") for each in ("bias", "scale"))
    return b.gain(b.shift(x, bias), scale)


def _added(b: GraphBuilder, c: ModelConfig, x: Value, y: Value, name: str) -> Value:
    """Both scaled, and added."""
    return b.add(_scaled(b, c, y, f"{name}.hidden_states"), _scaled(b, c, x, f"{name}.residual"))


def _rows(c: ModelConfig, name: str) -> _Rows:
    group, heads = c.num_heads // c.num_kv_heads, {"q": c.num_heads, "k": c.num_kv_heads}
    queries, of_keys = (rows_of_heads(c, heads, p, f"{name}.{p}_proj", None) for p in heads)
    # of whole heads there is one range for all of them
    each = [p for first, end in queries.ranges for p in _cut(first, end, c.head_dim)]
    count = len(each) // c.num_heads
    order = [key * group + place for place in range(group) for key in range(c.num_kv_heads)]
    return _Rows(RowsOf(queries.module, tuple(p for i in order for p in each[i * count : (i + 1) * count])), of_keys)


def _cut(first: int, end: int, width: int) -> list[tuple[int, int]]:
    """A range within one head, or those of the heads that it has."""
    return [(start, min(start + width, end)) for start in range(first, end, width)]


def _attention_block(
    b: GraphBuilder, c: ModelConfig, x: Value, layer: int, rope: RopeSpec, window: int | None
) -> Value:
    name = f"model.layers.{layer}"
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"{name}.input_layernorm.weight", "norm")
        parts = _queries_keys_values(b, c, h, f"{name}.self_attn")
        a = attention(b, c, parts, layer, rope, window)
        o = linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", c.attention_bias, None)
        with b.part("o"):
            return _added(b, c, x, o, f"{name}.post_attention_residual_scale")


def _queries_keys_values(b: GraphBuilder, c: ModelConfig, h: Value, name: str) -> dict[str, Value]:
    """Of all heads, normed, [T, heads * D] float32."""
    inner, group = f"{name}.qkv_proj", c.num_heads // c.num_kv_heads
    rows, bias = _rows(c, inner), c.attention_bias
    widths = {"q": c.num_heads * c.head_dim, "k": c.num_kv_heads * c.head_dim}
    q = linear(b, c, h, f"{inner}.q_proj", widths["q"], "q", bias, None, rows.queries)
    k = linear(b, c, h, f"{inner}.k_proj", widths["k"], "k", bias, None, rows.keys)
    with b.part("conv"):
        of_q, of_k = b.split(_convolved(b, c, b.join_heads(q, k, 1), inner, rows), (widths["q"], widths["k"]))
        both = b.scale(b.add_parts(q, k, group, None, 1.0), 0.5)
        q, k = b.add(of_q, both), b.add_parts(of_k, both, 1, None, 1.0 / group)
    eps = 2.0**-46 / c.head_dim  # of the least length that a head is divided by
    temp = tuple(RowSegment(f"{name}.qk_norm.temp", i, i + 1) for i in range(c.num_kv_heads) for _ in range(c.head_dim))
    with b.part("q"):
        q = _by_key(b, c, b.rms_norm(q, None, eps, num_heads=c.num_heads), group)
    with b.part("k"):
        weight = b.weight(f"{name}.qk_norm.temp.heads", (widths["k"],), "float32", segments=temp)
        k = b.rms_norm(k, weight, eps, num_heads=c.num_kv_heads)
    half = widths["k"] // 2
    now = linear(b, c, h, f"{inner}.v_proj_current", half, "v", bias, None)
    before = linear(b, c, h, f"{inner}.v_proj_delayed", half, "v_before", False, None)
    with b.part("v_before"):
        first = b.weight(f"{inner}.v_proj_delayed.bias", (half,), "float32") if bias else None
        delay = b.weight(f"{inner}.v_delay.weight", (half, 2), "float32")
        v = b.join_heads(now, b.causal_conv(before, delay, first, activation="none"), 1)
    return {"q": q, "k": k, "v": v}


def _convolved(b: GraphBuilder, c: ModelConfig, qk: Value, name: str, rows: _Rows) -> Value:
    """qk through both convolutions, [T, channels of queries and keys] float32."""
    s = c.recurrent
    assert isinstance(s, ConvolvedSettings), "the architecture's rules name its keys"
    heads, channels = c.num_heads + c.num_kv_heads, s.channels
    slow = b.weight(
        f"{name}.conv_qk_depthwise.bias",
        (channels,),
        "float32",
        segments=rows.of(f"{name}.conv_qk_depthwise").segments("bias"),
    )
    y = None
    for place in range(s.second):
        ago = s.second - 1 - place
        module, matrix = f"{name}.conv_qk_depthwise.{ago}", f"{name}.conv_qk_grouped.{place}"
        of_conv, of_matrix = (rows.of(each).segments("weight") for each in (module, matrix))
        weight = b.weight(f"{module}.weight", (channels, s.first + ago), "float32", segments=of_conv)
        z = b.cast(b.causal_conv(qk, weight, slow, activation="none"), c.dtype)
        part = b.head_linear(
            z, b.weight(f"{matrix}.weight", (channels, c.head_dim), c.dtype, segments=of_matrix), heads
        )
        y = part if y is None else b.add(y, part)
    assert y is not None
    last = rows.of(f"{name}.conv_qk_grouped").segments("bias")
    return b.shift(y, b.weight(f"{name}.conv_qk_grouped.bias", (channels,), "float32", segments=last))


def _by_key(b: GraphBuilder, c: ModelConfig, q: Value, group: int) -> Value:
    """Queries, those of a key side by side."""
    parts = b.split(q, (c.num_kv_heads * c.head_dim,) * group)
    found = parts[0]
    for part in parts[1:]:
        found = b.join_heads(found, part, c.num_kv_heads)
    return found


def _mixture_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, said: Value | None) -> tuple[Value, Value]:
    """x and what a token's expert makes of norm(x); and what the next layer's router is told. Args: said: to this."""
    assert c.experts is not None
    name = f"model.layers.{layer}"
    with b.part(f"layers.{layer}.moe"):
        h = norm(b, c, x, f"{name}.post_attention_layernorm.weight", "norm")
        logits, said = _router(b, c, h, f"{name}.mlp.gate", said)
        with b.part("route"):
            choices = c.experts.count + c.experts.giving_back
            bias = b.weight(f"{name}.mlp.gate.balancing_biases", (choices,), "float32")
            ids, weights = b.route(logits, c.experts.top_k, False, bias, None, **c.experts.rules)
        pairs = experts(b, c, h, ids, f"{name}.mlp.experts", QWEN)
        with b.part("combine"):
            return _added(b, c, x, b.combine(pairs, weights), f"{name}.post_mlp_residual_scale"), said


def _router(b: GraphBuilder, c: ModelConfig, h: Value, name: str, said: Value | None) -> tuple[Value, Value]:
    """Logits of experts, and what the next layer's router is told, both float32."""
    s, settings = c.recurrent, c.experts
    assert isinstance(s, ConvolvedSettings) and settings is not None
    width = s.router_width
    told = linear(b, c, h, f"{name}.down_proj", width, "router", True, "router")
    with b.part("router"):
        if said is not None:
            told = b.add(told, b.gain(said, b.weight(f"{name}.router_states_scale", (width,), "float32")))
        weight = b.weight(f"{name}.router_mlp.norm.weight", (width,), "float32")
        y = b.cast(b.rms_norm(told, weight, c.rms_norm_eps), c.dtype)
    for each in ("fc1", "fc2"):
        y = linear(b, c, y, f"{name}.router_mlp.{each}", width, "router", True, "router")
        with b.part("router"):
            y = b.cast(b.unary(y, "gelu"), c.dtype)
    choices = settings.count + settings.giving_back
    return linear(b, c, y, f"{name}.router_mlp.out_proj", choices, "router", False, "router"), told
