"""Layers of ModernBERT, the encoder and the decoder: norms of embeddings and of what is read, but of what the first
attention reads, which are those embeddings; a gate in the FFN.

Called by the architecture files. Uses the parts of layers.py, whose rounding points these have, too.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.blocks.feed_forward import FFNNames, gated_mlp
from albireo.models.blocks.layers import attention, linear, norm, queries_keys_values, unrounded_norm, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ModelConfig

_FFN = FFNNames(down="Wo")


def modernbert_states(
    b: GraphBuilder, c: ModelConfig, max_model_len: int, embeddings: Value, prefix: str, joined: str | None
) -> Value:
    """What the last layer gives, [T, E] float32. Args: embeddings: rows of the table. prefix: of all names. joined: of
    what holds the rows of q, k and v; None: each lies by itself."""
    ropes = {is_local: rope_spec(c, max_model_len, is_local=is_local) for is_local in (False, True)}
    with b.part("embed"):
        x = unrounded_norm(b, c, embeddings, f"{prefix}embeddings.norm.weight")
    for layer, window in enumerate(windows(c, max_model_len)):
        name = f"{prefix}layers.{layer}"
        with b.part(f"layers.{layer}.attn"):
            h = norm(b, c, x, f"{name}.attn_norm.weight", "norm") if layer else b.cast(x, c.dtype)
            parts = queries_keys_values(b, c, h, f"{name}.attn", bias=c.blocks.qkv_bias, joined=joined)
            a = attention(b, c, parts, layer, ropes[c.windows[layer] is not None], window)
            o = linear(b, c, a, f"{name}.attn.Wo", c.hidden_size, "o", c.blocks.o_bias, "row")
            with b.part("o"):
                x = b.add(x, o)
        with b.part(f"layers.{layer}.mlp"):
            h = norm(b, c, x, f"{name}.mlp_norm.weight", "norm")
            bias, width = c.blocks.ffn_bias, c.intermediate_size
            down = gated_mlp(b, c, h, f"{name}.mlp", width, bias=bias, joined="Wi", names=_FFN)
            with b.part("down"):
                x = b.add(x, down)
    return x
