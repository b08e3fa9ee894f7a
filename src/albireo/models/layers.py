"""The parts of a decoder as graph-building functions.

Called by the architecture files. Knows op names and checkpoint names, no devices, no fused kernels: merging and
fusing is the compiler's. Rounding to the compute dtype is written out as casts:

    x               the residual stream, float32
    cast(norm(x))   what a matrix is multiplied with, compute dtype
    linear(...)     float32

Matrices are constants of the compute dtype; vectors (norms, biases) stay float32, because they are small. Each linear
says by its role how ranks may share it (graph.ops.LINEAR_ROLES).
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.models.config import ModelConfig

#: Tensors some checkpoints carry that are computed from config.json instead.
IGNORABLE_WEIGHTS = ("*.rotary_emb.inv_freq",)
#: A tied checkpoint may hold the head a second time.
TIED_WEIGHTS = {"lm_head.weight": "model.embed_tokens.weight"}


def embedding(b: GraphBuilder, c: ModelConfig) -> Value:
    """Rows of the embedding table: the residual stream [T, E] float32."""
    with b.part("embed"):
        return b.embed(b.token_ids, _table(b, c))


def attention_block(
    b: GraphBuilder,
    c: ModelConfig,
    x: Value,
    layer: int,
    rope: RopeSpec,
    *,
    window: int | None = None,
    qkv_bias: bool = False,
    o_bias: bool = False,
    qk_norm: bool = False,
) -> Value:
    """x + attention(norm(x)) of one layer, [T, E] float32.

    Args: window: positions seen, the token's own included. qk_norm: RMS norm of each head of q and k before RoPE.
    """
    name = f"model.layers.{layer}.self_attn"
    heads = {"q": c.num_heads, "k": c.num_kv_heads, "v": c.num_kv_heads}
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"model.layers.{layer}.input_layernorm.weight", "norm")
        parts = {p: linear(b, c, h, f"{name}.{p}_proj", heads[p] * c.head_dim, p, qkv_bias, "heads") for p in heads}
        for p in ("q", "k"):
            if qk_norm:
                with b.part(p):
                    weight = b.weight(f"{name}.{p}_norm.weight", (c.head_dim,), "float32")
                    parts[p] = b.rms_norm(parts[p], weight, c.rms_norm_eps, num_heads=heads[p])
            with b.part("rope"):
                parts[p] = b.rope(parts[p], rope, heads[p], c.head_dim)
        with b.part("kv"):
            b.kv_write(parts["k"], parts["v"], layer, c.num_kv_heads, c.head_dim)
        a = _attention(b, c, parts["q"], layer, window)
        o = linear(b, c, a, f"{name}.o_proj", c.hidden_size, "o", o_bias, "row")
        with b.part("o"):
            return b.add(x, o)


def mlp_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, *, bias: bool = False) -> Value:
    """x + down(silu(gate(h)) * up(h)) with h = norm(x), of one layer, [T, E] float32."""
    name = f"model.layers.{layer}.mlp"
    with b.part(f"layers.{layer}.mlp"):
        h = norm(b, c, x, f"model.layers.{layer}.post_attention_layernorm.weight", "norm")
        down = gated_mlp(b, c, h, name, c.intermediate_size, bias=bias)
        with b.part("down"):
            return b.add(x, down)


def gated_mlp(b: GraphBuilder, c: ModelConfig, h: Value, name: str, width: int, *, bias: bool = False) -> Value:
    """down(silu(gate(h)) * up(h)) of width channels, [T, E] float32."""
    gate = linear(b, c, h, f"{name}.gate_proj", width, "gate", bias, "ffn")
    up = linear(b, c, h, f"{name}.up_proj", width, "up", bias, "ffn")
    with b.part("act"):
        m = b.cast(b.mul(b.unary(gate, c.hidden_act), up), c.dtype)
    return linear(b, c, m, f"{name}.down_proj", c.hidden_size, "down", bias, "row")


def head(b: GraphBuilder, c: ModelConfig, x: Value) -> Graph:
    """Final norm and vocabulary head; finishes the graph.

    Outputs: logits [R, V] of the rows in logit_rows; top_ids and top_values [G, TOP_LOGITS] of those in top_rows.
    """
    with b.part("head"):
        y = norm(b, c, x, "model.norm.weight", "norm")
        if c.tie_word_embeddings:
            weight = _table(b, c)
        else:
            weight = b.weight("lm_head.weight", (c.vocab_size, c.hidden_size), c.dtype)
        with b.part("logits"):
            logits = b.linear(b.gather_rows(y, b.logit_rows), weight, role="vocab")
        with b.part("top"):
            top_ids, top_values = b.top_logits(b.linear(b.gather_rows(y, b.top_rows), weight, role="vocab"))
    return b.finish(logits=logits, top_ids=top_ids, top_values=top_values)


def windows(c: ModelConfig, max_model_len: int) -> tuple[int | None, ...]:
    """One window a layer; None also for those that no sequence of at most max_model_len tokens can notice."""
    return tuple(w if w is not None and w < max_model_len else None for w in c.windows)


def _table(b: GraphBuilder, c: ModelConfig) -> Value:
    return b.weight("model.embed_tokens.weight", (c.vocab_size, c.hidden_size), c.dtype)


def norm(b: GraphBuilder, c: ModelConfig, x: Value, name: str, part: str) -> Value:
    with b.part(part):
        weight = b.weight(name, (c.hidden_size,), "float32")
        return b.cast(b.rms_norm(x, weight, c.rms_norm_eps), c.dtype)


def linear(
    b: GraphBuilder, c: ModelConfig, x: Value, name: str, rows: int, part: str, has_bias: bool, role: str
) -> Value:
    with b.part(part):
        columns = x.type.dims[-1]
        assert isinstance(columns, int)
        weight = b.weight(f"{name}.weight", (rows, columns), c.dtype)
        bias = b.weight(f"{name}.bias", (rows,), "float32") if has_bias else None
        return b.linear(x, weight, bias, role)


def _attention(b: GraphBuilder, c: ModelConfig, q: Value, layer: int, window: int | None) -> Value:
    with b.part("attention"):
        a = b.attention(
            b.cast(q, c.dtype),
            layer=layer,
            num_heads=c.num_heads,
            num_kv_heads=c.num_kv_heads,
            head_dim=c.head_dim,
            scale=c.scale,
            window=window,
            softcap=None,
        )
        return b.cast(a, c.dtype)
