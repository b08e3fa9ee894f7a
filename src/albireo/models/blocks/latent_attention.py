"""Multi-head latent attention (DeepSeek V2 and later) as graph-building functions, and what its keys say.

Called by the architecture files. A position leaves one vector in the cache: a latent that keys and values of all heads
are linear functions of, and channels that are rotated. A head's key is never made: its query goes through the transpose
of the matrix that would make it, and meets the latent itself; values are latents until they are summed. So attention
has one KV head, whose values are the first channels of its keys. Source: DeepSeek-AI 2024, DeepSeek-V2, section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import linear, norm
from albireo.models.checkpoint.latent_weights import OF_KEYS, OF_VALUES
from albireo.models.config import ModelConfig
from albireo.models.config_keys import MAX_HEAD_DIM, MAX_WIDTH
from albireo.models.settings.block_settings import BlockSettings, Latent

#: Keys of such models that change nothing here: a head's width is told by its parts, layers that guess are left out.
UNREAD = keys(
    "num_key_value_heads head_dim qk_head_dim num_nextn_predict_layers num_mtp_layers ep_size aux_loss_alpha seq_aux",
    "auto_map",
)


def latent_blocks(fields: Fields, value: int | None = None, *, turns: bool = True) -> BlockSettings:
    """What config.json says of latent attention.

    Args: value: of a head's values, where nothing says how wide they are. turns: keys have channels that are rotated.
    Raises: ModelError for a missing or impossible value.
    """
    rotary = fields.integer("qk_rope_head_dim", 2 if turns else 0, MAX_HEAD_DIM if turns else 0)
    if rotary % 2:
        fields.fail("qk_rope_head_dim", rotary, "must be even, for rotary pairs")
    rank = fields.integer("kv_lora_rank", 2, MAX_HEAD_DIM - rotary)
    if rank % 2:
        fields.fail("kv_lora_rank", rank, "must be even")
    latent = Latent(
        rank,
        rotary,
        fields.integer("qk_nope_head_dim", 1, MAX_HEAD_DIM),
        fields.integer("v_head_dim", 1, MAX_HEAD_DIM, default=value),
        fields.optional_integer("q_lora_rank", 1, MAX_WIDTH),
    )
    return BlockSettings(num_kv_heads=1, latent=latent)


def unrotated_latent_blocks(fields: Fields) -> BlockSettings:
    """The same where nothing is rotated: those channels are there, and stay as they are."""
    return replace(latent_blocks(fields), has_rotation=False)


class LatentNames(NamedTuple):
    """What an architecture calls attention within its layer, the output projection, what gives a gate of each head, or
    of each channel of its value (empty: there is none), and a score more of each softmax (empty: there is none)."""

    block: str = "self_attn"
    out: str = "o_proj"
    gate: str = ""
    gates_channels: bool = False
    sinks: str = ""


DEEPSEEK = LatentNames()


def latent_attention_block(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    layer: int,
    rope: RopeSpec | None,
    *,
    cache: int | None = None,
    names: LatentNames = DEEPSEEK,
    choose: Callable[[Value, Value, int], Value | None] | None = None,
) -> Value:
    """x + attention(norm(x)) of one layer, [T, E] float32.

    Args:
        rope: None: nothing is rotated. cache: place of the layer's KV cache; None: as the config has it.
        choose: of norm(x), the latent of queries and the layer, positions that rows see; see indexer.py.
    """
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
        o = latent_attention(b, c, h, layer, rope, cache=cache, names=names, choose=choose)
        with b.part("o"):
            return b.add(x, o)


def latent_attention(
    b: GraphBuilder,
    c: ModelConfig,
    h: Value,
    layer: int,
    rope: RopeSpec | None,
    *,
    cache: int | None = None,
    names: LatentNames = DEEPSEEK,
    choose: Callable[[Value, Value, int], Value | None] | None = None,
    window: int | None = None,
    writes: bool = True,
) -> Value:
    """attention(h), [T, E] float32; see latent_attention_block().

    Args: h: rounded. window: positions seen, the token's own included; None: all. writes: else the cache has what
        another layer left there.
    """
    latent, heads, cache = c.blocks.latent, c.num_heads, c.cache_of(layer) if cache is None else cache
    assert latent is not None
    name, bias = f"model.layers.{layer}.{names.block}", c.attention_bias
    source, whole = _source_of_queries(b, c, latent, h, name)
    plain, rotated = _queries(b, c, latent, whole, name)
    low, turned = _key(b, c, latent, h, name, bias) if writes else (None, None)
    grown = growth_of_heads(b, name, heads) if latent.grows else None
    with b.part("rope"):
        if rope is not None and rotated is not None:
            rotated = b.rope(rotated, rope, heads, latent.rotary, grown)
        if rope is not None and turned is not None:
            turned = b.rope(turned, rope.of_keys, 1, latent.rotary)
        if grown is not None or (rope is not None and rope.growth is not None):
            still = RopeSpec((0.0,) * (latent.plain // 2), growth=None if rope is None else rope.growth)
            plain = b.rope(plain, still, heads, latent.plain, grown)
    if low is not None:
        with b.part("kv"):
            key = _normed(b, c, latent, low, f"{name}.kv_a_layernorm")
            b.kv_write(key if turned is None else b.join_heads(key, turned, 1), None, cache, 1, c.head_dim)
    chosen = None if choose is None else choose(h, source, layer)
    met = _of_heads(b, c, plain, f"{name}.{OF_KEYS}", latent.rank, "k_up")
    with b.part("attention"):
        sinks = b.weight(f"{name}.{names.sinks}", (heads,), "float32") if names.sinks else None
        seen = b.attention(
            b.cast(met if rotated is None else b.join_heads(met, rotated, heads), c.dtype),
            sinks,
            chosen=chosen,
            layer=cache,
            num_heads=heads,
            num_kv_heads=1,
            head_dim=c.head_dim,
            scale=c.scale,
            window=window,
            softcap=None,
            value_dim=latent.rank,
        )
    values = _of_heads(b, c, seen, f"{name}.{OF_VALUES}", latent.value, "v_up")
    gate = _gate(b, c, latent, h, whole, name, names)
    if gate is not None:
        with b.part("v_up"):
            of_channels = gate.type == values.type
            values = b.mul(values, b.unary(gate, "sigmoid")) if of_channels else b.gate_rows(values, gate)
    return linear(b, c, b.cast(values, c.dtype), f"{name}.{names.out}", c.hidden_size, "o", bias, "row")


def growth_of_heads(b: GraphBuilder, name: str, heads: int) -> tuple[Value, Value]:
    """What queries of each head are multiplied by, see GraphBuilder.rope(). Args: name: of attention, or what chooses
    for it."""
    slope, start = (b.weight(f"{name}.softmax_scaling.{each}", (heads,), "float32") for each in ("scale", "bias"))
    return slope, start


def _key(
    b: GraphBuilder, c: ModelConfig, latent: Latent, h: Value, name: str, bias: bool
) -> tuple[Value, Value | None]:
    """The latent of keys and values, not normed yet, and the channels of keys that are to be rotated, if any."""
    low = linear(b, c, h, f"{name}.c_kv_proj", latent.rank, "c_kv", bias, None, _rows_of_latent(name, latent))
    if not latent.rotary:
        return low, None
    turned = linear(b, c, h, f"{name}.k_rope_proj", latent.rotary, "k_rope", bias, None, _rows_of_key(c, name))
    return low, _normed_key(b, c, latent, turned, f"{name}.k_rope_only_layernorm") if latent.norms_key else turned


def _source_of_queries(b: GraphBuilder, c: ModelConfig, latent: Latent, h: Value, name: str) -> tuple[Value, Value]:
    """What queries are a linear function of: h, or a latent of their own; and that with all that its matrix reads."""
    if latent.query_rank is None:
        return h, h
    low = linear(b, c, h, f"{name}.q_a_proj", latent.query_rank, "q_a", c.attention_bias, None)
    with b.part("q_a_norm"):
        normed = _normed(b, c, latent, low, f"{name}.q_a_layernorm")
        source = b.cast(normed, c.dtype)
        return source, b.cast(b.join_heads(normed, low, 1), c.dtype) if latent.gates_with_queries else source


def _gate(
    b: GraphBuilder, c: ModelConfig, latent: Latent, h: Value, source: Value, name: str, names: LatentNames
) -> Value | None:
    """By whose sigmoids values are multiplied: [T, heads * channels of a value] or [T, heads] float32, if any."""
    heads, value = c.num_heads, latent.value
    if latent.gates_with_queries:
        module, behind = f"{name}.q_b_proj", latent.plain + latent.rotary
        starts = [head * (behind + value) + behind for head in range(heads)]
        rows = RowsOf(module, tuple((start, start + value) for start in starts))
        return linear(b, c, source, f"{module}.gate", heads * value, "q_gate", False, "heads", rows)
    if not names.gate:
        return None
    width = heads * (value if names.gates_channels else 1)
    return linear(b, c, h, f"{name}.{names.gate}", width, "q_gate", False, "heads")


def _queries(b: GraphBuilder, c: ModelConfig, latent: Latent, h: Value, name: str) -> tuple[Value, Value | None]:
    """The channels of all heads that are not rotated, and those that are to be, if any: [T, heads * channels] each."""
    module = f"{name}.q_proj" if latent.query_rank is None else f"{name}.q_b_proj"
    width = latent.plain + latent.rotary + (latent.value if latent.gates_with_queries else 0)
    starts = [head * width for head in range(c.num_heads)]
    plain = RowsOf(module, tuple((start, start + latent.plain) for start in starts))
    still = linear(b, c, h, f"{module}.plain", c.num_heads * latent.plain, "q_plain", False, "heads", plain)
    if not latent.rotary:
        return still, None
    turning = RowsOf(module, tuple(p for start in starts for p in _turning(c, start + latent.plain, latent.rotary)))
    return still, linear(b, c, h, f"{module}.rope", c.num_heads * latent.rotary, "q_rope", False, "heads", turning)


def _rows_of_latent(name: str, latent: Latent) -> RowsOf:
    return RowsOf(f"{name}.kv_a_proj_with_mqa", ((0, latent.rank),))


def _rows_of_key(c: ModelConfig, name: str) -> RowsOf:
    latent = c.blocks.latent
    assert latent is not None
    return RowsOf(f"{name}.kv_a_proj_with_mqa", _turning(c, latent.rank, latent.rotary))


def _turning(c: ModelConfig, start: int, count: int) -> tuple[tuple[int, int], ...]:
    """Rows that are rotated, in pairs (i, i + count / 2)."""
    if not c.has_pairs_side_by_side:
        return ((start, start + count),)
    return tuple((row, row + 1) for side in range(2) for row in range(start + side, start + count, 2))


def _normed(b: GraphBuilder, c: ModelConfig, latent: Latent, low: Value, module: str) -> Value:
    """norm of a latent, float32."""
    width = int(low.type.dims[-1])
    factor = (c.hidden_size / width) ** 0.5 if latent.is_lengthened else 1.0
    return b.rms_norm(low, b.weight(f"{module}.weight", (width,), "float32", factor=factor), latent.eps)


def _normed_key(b: GraphBuilder, c: ModelConfig, latent: Latent, turned: Value, module: str) -> Value:
    """norm of the channels that are rotated; its weights in the order in which they are."""
    rows = RowsOf(module, _turning(c, 0, latent.rotary)).segments("weight")
    with b.part("k_rope"):
        return b.rms_norm(turned, b.weight(f"{module}.weight", (latent.rotary,), "float32", segments=rows), latent.eps)


def _of_heads(b: GraphBuilder, c: ModelConfig, x: Value, name: str, width: int, part: str) -> Value:
    """Each head's channels through a matrix of its own, [T, heads * width] float32."""
    with b.part(part):
        columns = int(x.type.dims[-1]) // c.num_heads
        weight = b.weight(f"{name}.weight", (c.num_heads * width, columns), c.dtype)
        return b.head_linear(b.cast(x, c.dtype), weight, c.num_heads)
