"""The parts of a decoder as graph-building functions: its ends and attention; FFNs are in feed_forward.py.

Called by the architecture files. Knows op names and checkpoint names, no devices, no fused kernels: merging and
fusing is the compiler's. Rounding to the compute dtype is written out as casts:

    x               the residual stream, float32
    cast(norm(x))   what a matrix is multiplied with, compute dtype
    linear(...)     float32

Matrices are constants of the compute dtype; vectors (norms, biases) stay float32, because they are small. Each linear
says by its role how ranks may share it (graph.op_numbers.LINEAR_ROLES).

Where what attention and FFN add is multiplied by a number (config.multipliers.residual), x is the residual stream
divided by it: what is added is added as it is, and a norm, which does not see how long x is, has its eps divided by the
number's square.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypedDict, Unpack

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, RowSegment, Value
from albireo.graph.op_numbers import GATES
from albireo.graph.ops import RopeSpec
from albireo.graph.outputs import NEXT_OF_LOGITS, NEXT_OF_TOP
from albireo.models.blocks.head_rows import RowsOf, RowsOfSeveral, rows_of_gate, rows_of_head_norm, rows_of_heads
from albireo.models.config import ModelConfig
from albireo.models.settings.draft_input import EMBEDDING_NORM, FEW_LOGITS, JOINING, STATE_NORM, DraftInput
from albireo.models.settings.multipliers import nearest


class Norms(NamedTuple):
    """Names of a block's norms: of what it reads, and of what it adds; None: there is none."""

    before: str | None
    behind: str | None = None


#: What attention reads is normed; both are; what it adds is.
BEFORE_ATTENTION = Norms("input_layernorm")
AROUND_ATTENTION = Norms("input_layernorm", "post_attention_layernorm")
BEHIND_ATTENTION = Norms(None, "post_attention_layernorm")


class AttentionNames(NamedTuple):
    """What an architecture calls the output projection, the norms of q and k (empty: they have no weight), and what
    gives the gate of the output, where that is a linear of its own; attention within its layer; its sinks;
    and the norm of what all heads give together, for which every rank needs all of them (empty: there is none)."""

    out: str = "o_proj"
    q_norm: str = "q_norm"
    k_norm: str = "k_norm"
    gate: str = ""
    block: str = "self_attn"
    sinks: str = "sinks"
    inner_norm: str = ""


LLAMA_ATTENTION = AttentionNames()


class Ends(NamedTuple):
    """Names of the tensors at the ends of a model; norm and head without their last part."""

    table: str = "model.embed_tokens.weight"
    norm: str = "model.norm"
    head: str = "lm_head"


LLAMA_ENDS = Ends()


def embedding(b: GraphBuilder, c: ModelConfig, names: Ends = LLAMA_ENDS) -> Value:
    """Rows of the embedding table times their multiplier: the residual stream [T, E] float32. Of a layer that guesses,
    they are joined with hidden states first."""
    with b.part("embed"):
        x = b.embed(b.token_ids, _table(b, c, names))
        factor = embedding_factor(c)
        x = x if factor == 1.0 else b.scale(x, factor)
    return x if c.draft is None else _joined_with_states(b, c, x, c.draft)


def _joined_with_states(b: GraphBuilder, c: ModelConfig, x: Value, draft: DraftInput) -> Value:
    """A linear of embeddings and the hidden states that come with the step, both normed, side by side."""
    with b.part("join"):
        parts = [(x, EMBEDDING_NORM), (b.given(c.hidden_size, 0), STATE_NORM)]
        first, second = (unrounded_norm(b, c, value, f"{name}.weight") for value, name in parts)
        if draft.is_state_first:
            first, second = second, first
        joined = b.cast(b.join_heads(first, second, 1), c.dtype)
        return linear(b, c, joined, JOINING, c.hidden_size, "fc", False, None)


def embedding_factor(c: ModelConfig) -> float:
    """What rows of the table are multiplied by, before they are the residual stream."""
    given = c.multipliers.embedding
    # the root is rounded as transformers does; what it multiplies is not
    return (nearest(c.hidden_size**0.5, c.dtype) if given is None else given) / c.multipliers.residual


class AttentionWays(TypedDict, total=False):
    """How a layer's attention differs from llama's.

    Keys:
        qkv_bias, o_bias: of the linears; where they are not said both are as the config's attention_bias.
        qk_norm: RMS norm of each head of q and k before RoPE; is_norm_wide: of all heads at once, for which every rank
            needs all of them; is_norm_behind: behind RoPE.
        v_norm: RMS norm of each head of v, without a weight.
        linears: which of q, k and v have one. Without that of v, values are keys before their norm and rotation; with
            that of q alone, keys and values are those that another layer wrote, and none are written.
        joined: name of the tensor that holds the rows of q, k and v, where one does.
        sinks: each head has one more score in the softmax of its rows.
        cache: the place of the KV cache it reads; where it is not said as the config has it.
        is_causal: tokens of images see nothing behind them, whatever the step says.
        choose: of norm(x) and the layer, positions that each KV head of rows sees; see indexer.py.
        names: what the parts are called.
    """

    qkv_bias: bool
    o_bias: bool
    qk_norm: bool
    is_norm_wide: bool
    is_norm_behind: bool
    v_norm: bool
    linears: str
    joined: str | None
    sinks: bool
    cache: int
    is_causal: bool
    choose: Callable[[Value, int], Value | None] | None
    names: AttentionNames


def attention_block(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    layer: int,
    rope: RopeSpec,
    *,
    norms: Norms = BEFORE_ATTENTION,
    window: int | None = None,
    **ways: Unpack[AttentionWays],
) -> Value:
    """x + attention(norm(x)) of one layer, [T, E] float32; with a gate where config.blocks says so. Args: window:
    positions seen, the token's own included; None: all."""
    with b.part(f"layers.{layer}.attn"):
        h = block_input(b, c, x, layer, norms.before)
        o = attended(b, c, h, layer, rope, window, **ways)
        return added(b, c, x, o, layer, "o", norms.behind)


def attended(
    b: GraphBuilder,
    c: ModelConfig,
    h: Value,
    layer: int,
    rope: RopeSpec,
    window: int | None = None,
    **ways: Unpack[AttentionWays],
) -> Value:
    """attention(h) of one layer, [T, E] float32. Args: h: rounded. window: as of attention_block()."""
    names, is_norm_wide, bias = ways.get("names", LLAMA_ATTENTION), ways.get("is_norm_wide", False), c.attention_bias
    qkv_bias, o_bias = ways.get("qkv_bias", bias), ways.get("o_bias", bias)
    name = f"model.layers.{layer}.{names.block}"
    roles = (None, None) if is_norm_wide or names.inner_norm else ("heads", "row")
    linears, joined = ways.get("linears", "qkv"), ways.get("joined")
    parts = queries_keys_values(b, c, h, name, bias=qkv_bias, joined=joined, role=roles[0], linears=linears)
    if ways.get("v_norm") and "v" in parts:
        with b.part("v"):
            parts["v"] = b.rms_norm(parts["v"], None, c.rms_norm_eps, num_heads=c.num_kv_heads)

    def normed(p: str, x: Value) -> Value:
        heads, called = (c.num_heads, names.q_norm) if p == "q" else (c.num_kv_heads, names.k_norm)
        if not called:
            with b.part(p):
                return b.rms_norm(x, None, c.rms_norm_eps, num_heads=heads)
        return _head_norm(b, c, x, f"{name}.{called}", p, heads, is_norm_wide)

    behind = normed if ways.get("qk_norm") and ways.get("is_norm_behind") else None
    if ways.get("qk_norm") and behind is None:
        parts |= {p: normed(p, parts[p]) for p in ("q", "k") if p in parts}
    parts = limited(b, c, parts)
    sink = b.weight(f"{name}.{names.sinks}", (c.num_heads,), "float32") if ways.get("sinks") else None
    gate = _output_gate(b, c, h, name, qkv_bias, names.gate)
    place = ways["cache"] if "cache" in ways else c.cache_of(layer)
    inner = f"{name}.{names.inner_norm}.weight" if names.inner_norm else ""
    choose, is_causal = ways.get("choose"), ways.get("is_causal", False)
    chosen = choose(h, layer) if choose is not None else None
    told: dict[str, Any] = {"is_causal": is_causal, "behind": behind, "inner": inner, "chosen": chosen}
    a = attention(b, c, parts, place, rope, window, sink, gate, **told)
    return linear(b, c, a, f"{name}.{names.out}", c.hidden_size, "o", o_bias, roles[1])


def queries_keys_values(
    b: GraphBuilder,
    c: ModelConfig,
    h: Value,
    name: str,
    *,
    bias: bool,
    joined: str | None = None,
    role: str | None = "heads",
    linears: str = "qkv",
    query: str = "",
) -> dict[str, Value]:
    """q, k, v: [T, heads * D] float32. Args: name: of attention. joined, linears: see AttentionWays. query: the module
    of queries, where what is joined are keys and values alone."""
    heads = {"q": c.num_heads, "k": c.num_kv_heads, "v": c.num_kv_heads}
    parts = {}
    for p in linears:
        module = f"{name}.{p}_proj"
        whole = f"{name}.{query if p == 'q' and query else joined}" if joined else None
        rows = rows_of_heads(c, heads, p, module, whole)
        parts[p] = linear(b, c, h, module, heads[p] * c.head_dim, p, bias, role, rows)
    return parts | {"v": parts["k"]} if linears == "qk" else parts


def limited(b: GraphBuilder, c: ModelConfig, parts: dict[str, Value]) -> dict[str, Value]:
    """q, k and v within what config.multipliers allows them."""
    if c.multipliers.qkv_limit is None:
        return parts
    found = {}
    for p, value in parts.items():
        with b.part(p):
            found[p] = b.clip(value, c.multipliers.qkv_limit)
    return found


def attention(
    b: GraphBuilder,
    c: ModelConfig,
    parts: dict[str, Value],
    layer: int,
    rope: RopeSpec,
    window: int | None,
    sinks: Value | None = None,
    gate: Value | None = None,
    distances: Value | None = None,
    is_causal: bool = False,
    behind: Callable[[str, Value], Value] | None = None,
    inner: str = "",
    chosen: Value | None = None,
) -> Value:
    """What the output projection multiplies, of queries_keys_values(); q and k are rotated first. Without k and v the
    cache is read as it is.

    Args: layer: of the KV cache. sinks: [heads]. gate: [T, heads * D], or [T, heads] where config.blocks says so, by
        whose sigmoid, or what else config.blocks says, the result is multiplied.
        distances: see graph.ops. is_causal: see AttentionWays. behind: what becomes of q and of k, rotated. inner:
        the weight by which what all heads give is normed; empty: it is not. chosen: of AttentionWays' choose.
    """
    with b.part("rope"):
        q = b.rope(parts["q"], rope, c.num_heads, c.head_dim)
        k = b.rope(parts["k"], rope.of_keys, c.num_kv_heads, c.head_dim) if "k" in parts else None
    if behind is not None:
        q, k = behind("q", q), None if k is None else behind("k", k)
    if k is not None:
        with b.part("kv"):
            b.kv_write(k, parts["v"], layer, c.num_kv_heads, c.head_dim)
    ways: dict[str, Any] = {"both_ways": True} if c.blocks.sees_both_ways else {"causal": True} if is_causal else {}
    ways |= {"slopes": c.blocks.slopes} if c.blocks.slopes else {}
    ways |= {"in_chunks": True} if c.blocks.sees_chunks and window is not None else {}
    ways |= {"result_dim": c.blocks.value_dim} if c.blocks.value_dim else {}
    ways |= {"own_lists": True} if chosen is not None and c.blocks.index is not None and c.blocks.index.block else {}
    with b.part("attention"):
        a = b.attention(
            b.cast(q, c.dtype),
            sinks,
            distances,
            chosen,
            layer=layer,
            num_heads=c.num_heads,
            num_kv_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            scale=c.scale / (layer + 1) if c.blocks.scores_by_layer else c.scale,
            window=window,
            softcap=c.multipliers.attention_cap,
            **ways,
        )
        if c.blocks.value_factor != 1.0:  # of values, whose kernels do not know it
            a = b.scale(a, c.blocks.value_factor)
        if gate is not None and (c.blocks.gates_heads or c.blocks.gate_kind != GATES[0]):
            a = b.gate_rows(a, gate, c.blocks.gate_kind)
        elif gate is not None:
            a = b.mul(a, b.unary(gate, "sigmoid"))
        if inner:
            a = b.rms_norm(a, _norm_weight(b, c, inner, c.num_heads * c.head_dim), c.rms_norm_eps)
        return b.cast(a, c.dtype)


def _output_gate(b: GraphBuilder, c: ModelConfig, h: Value, name: str, bias: bool, own: str) -> Value | None:
    """Called as a module of its own, though its rows are those of q_proj. Args: own: the module that it is, if any."""
    if own:
        width = c.num_heads * (1 if c.blocks.gates_heads else c.head_dim)
        return linear(b, c, h, f"{name}.{own}", width, "q_gate", False, "heads")
    if not c.blocks.has_output_gate:
        return None
    rows = rows_of_gate(c, f"{name}.q_proj")
    return linear(b, c, h, f"{name}.q_gate", c.num_heads * c.head_dim, "q_gate", bias, "heads", rows)


def head(b: GraphBuilder, c: ModelConfig, x: Value, names: Ends = LLAMA_ENDS, has_bias: bool = False) -> Graph:
    """Final norm and vocabulary head; finishes the graph.

    Of a model that writes no text: pooled_states().
    Outputs: logits [R, V] of the rows in logit_rows; top_ids and top_values [G, TOP_LOGITS] of those in top_rows.
    """
    if c.pooling is not None:
        with b.part("head"):
            x = unrounded_norm(b, c, x, f"{names.norm}.weight")
        return pooled_states(b, x)
    with b.part("head"):
        y = norm(b, c, x, f"{names.norm}.weight", "norm", 1.0 / c.multipliers.logits)
        weight = head_weight(b, c, names)
        bias = b.weight(f"{names.head}.bias", (c.vocab_size,), "float32") if has_bias else None
    following = x
    if c.draft is not None and c.draft.leaves_normed:
        with b.part("next"):
            following = unrounded_norm(b, c, x, f"{names.norm}.weight")
    return ending(b, c, y, weight, bias, following)


def head_weight(b: GraphBuilder, c: ModelConfig, names: Ends = LLAMA_ENDS) -> Value:
    """What makes logits of what the last norm gave: [V, E]. Of a layer that guesses among some tokens, their rows: the
    first ones, in whose place others may be put."""
    if c.draft is not None and c.draft.num_ids is not None:
        count, source = c.draft.num_ids, names.table if c.tie_word_embeddings else f"{names.head}.weight"
        rows = (RowSegment(source, 0, count),)
        return b.weight(FEW_LOGITS, (count, c.hidden_size), c.dtype, segments=rows)
    if c.tie_word_embeddings:
        return _table(b, c, names)
    return b.weight(f"{names.head}.weight", (c.vocab_size, c.hidden_size), c.dtype)


def ending(
    b: GraphBuilder, c: ModelConfig, y: Value, weight: Value, bias: Value | None = None, following: Value | None = None
) -> Graph:
    """Finishes the graph of a model that writes text. Args: y: what the head multiplies, rounded.
    following: [T, E] what stands for the next tokens' hidden states, of a layer that guesses; others have none."""
    with b.part("head"):
        with b.part("logits"):
            logits = _logits(b, c, b.gather_rows(y, b.logit_rows), weight, bias)
        with b.part("top"):
            top_ids, top_values = b.top_logits(_logits(b, c, b.gather_rows(y, b.top_rows), weight, bias))
    more = {}
    if c.draft is not None and following is not None:
        with b.part("next"):
            rows = {NEXT_OF_LOGITS: b.logit_rows, NEXT_OF_TOP: b.top_rows}
            more = {name: b.gather_rows(following, each) for name, each in rows.items()}
    return b.finish(logits=logits, top_ids=top_ids, top_values=top_values, **more)


def pooled_states(b: GraphBuilder, x: Value) -> Graph:
    """Finishes the graph of a model that has no vocabulary head. Args: x: what its last norm gave, float32.

    Output: hidden [R, E] of the rows in logit_rows.
    """
    with b.part("head"):
        return b.finish(hidden=b.gather_rows(x, b.logit_rows))


def windows(c: ModelConfig, max_model_len: int) -> tuple[int | None, ...]:
    """One window a layer; None also for those that no sequence of at most max_model_len tokens can notice."""
    return tuple(w if w is not None and w < max_model_len else None for w in c.windows)


def _head_norm(b: GraphBuilder, c: ModelConfig, x: Value, module: str, part: str, heads: int, is_wide: bool) -> Value:
    """Each head of q or k normed, or all at once."""
    count = 1 if is_wide else heads
    width = heads * c.head_dim // count
    rows = rows_of_head_norm(c, module, heads // count)
    with b.part(part):
        weight = b.weight(
            f"{module}.weight", (width,), "float32", segments=rows.segments("weight"), plus=c.multipliers.norm_plus
        )
        return b.rms_norm(x, weight, c.rms_norm_eps, num_heads=count)


def _table(b: GraphBuilder, c: ModelConfig, names: Ends) -> Value:
    return b.weight(names.table, (c.vocab_size, c.hidden_size), c.dtype)


def _norm_weight(b: GraphBuilder, c: ModelConfig, name: str, width: int, factor: float = 1.0) -> Value:
    return b.weight(name, (width,), "float32", plus=c.multipliers.norm_plus, factor=factor)


def norm(b: GraphBuilder, c: ModelConfig, x: Value, name: str, part: str, factor: float = 1.0) -> Value:
    """norm(x), rounded, its weight times factor. Args: name: of its weight."""
    with b.part(part):
        return b.cast(unrounded_norm(b, c, x, name, factor), c.dtype)


def unrounded_norm(b: GraphBuilder, c: ModelConfig, x: Value, name: str, factor: float = 1.0) -> Value:
    """norm(x), float32. Args: as norm()."""
    kind, eps = c.blocks, c.rms_norm_eps / c.multipliers.residual**2
    if not kind.is_layer_norm:
        return b.rms_norm(x, _norm_weight(b, c, name, c.hidden_size, factor), eps)
    weight = _norm_weight(b, c, name, c.hidden_size, factor) if kind.has_norm_weight else None
    of_bias = f"{name.removesuffix('.weight')}.bias"
    bias = b.weight(of_bias, (c.hidden_size,), "float32", factor=factor) if kind.has_norm_bias else None
    return b.layer_norm(x, weight, bias, eps)


def block_input(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, before: str | None) -> Value:
    """What the first linears of a block read."""
    if before is not None:
        return norm(b, c, x, f"model.layers.{layer}.{before}.weight", "norm")
    with b.part("norm"):
        return b.cast(x, c.dtype)


def added(b: GraphBuilder, c: ModelConfig, x: Value, y: Value, layer: int, part: str, behind: str | None) -> Value:
    """x + y, or x + norm(y)."""
    if behind is not None:
        with b.part("behind"):
            weight = _norm_weight(b, c, f"model.layers.{layer}.{behind}.weight", c.hidden_size)
            return b.add(x, b.rms_norm(y, weight, c.rms_norm_eps))
    with b.part(part):
        return b.add(x, y)


def linear(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    name: str,
    rows: int,
    part: str,
    has_bias: bool,
    role: str | None,
    made_of: RowsOf | RowsOfSeveral | None = None,
) -> Value:
    """Args: name: of its module; what it is called, too, where it is made of rows of another."""
    with b.part(part):
        columns = x.type.dims[-1]
        assert isinstance(columns, int)
        made_of = made_of or RowsOf(name, ((0, rows),))
        weight = b.weight(f"{name}.weight", (rows, columns), c.dtype, segments=made_of.segments("weight"))
        of_bias = made_of.segments("bias")
        bias = b.weight(f"{name}.bias", (rows,), "float32", segments=of_bias) if has_bias else None
        return b.linear(x, weight, bias, role)


def _logits(b: GraphBuilder, c: ModelConfig, y: Value, weight: Value, bias: Value | None) -> Value:
    logits, cap = b.linear(y, weight, bias, role="vocab"), c.multipliers.logits_cap
    return logits if cap is None else b.softcap(logits, cap)
