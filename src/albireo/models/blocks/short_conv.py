"""Layers with a gated short convolution, beside layers with attention, as graph-building functions: LFM2, LFM3.

Called by the architecture files. Uses the parts of layers.py. Everything between the two linears of a convolution is
float32, and is rounded once, before the second; of the rows that it keeps nothing is rounded.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.blocks.feed_forward import FFNNames, mlp_block
from albireo.models.blocks.layers import AttentionNames, Ends, Norms, added, linear, norm
from albireo.models.config import ModelConfig
from albireo.models.settings.recurrent_settings import ShortConvSettings

_ATTENTION, ENDS = AttentionNames("out_proj", "q_layernorm", "k_layernorm"), Ends(norm="model.embedding_norm")
_OPERATOR, FFN = Norms("operator_norm"), FFNNames("feed_forward", "w1", "w3", "w2")
_EXPERTS = Names(*FFN, bias="expert_bias", norm="ffn_norm")


def short_conv_decoder(c: ModelConfig, max_model_len: int) -> Graph:
    """A model of such layers and of layers with attention, with experts or one FFN behind either."""
    dense = partial(mlp_block, norms=Norms(_EXPERTS.norm), names=FFN)
    ffn = dense if c.experts is None else partial(moe_block, names=_EXPERTS)
    return decoder(
        c, max_model_len, ffn=ffn, state=short_conv_block, qk_norm=True, ends=ENDS, norms=_OPERATOR, names=_ATTENTION
    )


def short_conv_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, norms: Norms = _OPERATOR) -> Value:
    """x + out_proj(C * conv(B * h)) with B, C, h = in_proj(norm(x)), of one layer, [T, E] float32.

    Args: norms: the one behind is of what is added.
    """
    s = c.recurrent
    assert isinstance(s, ShortConvSettings), "the architecture's rules name its keys"
    name = f"model.layers.{layer}.conv"
    with b.part(f"layers.{layer}.conv"):
        h = norm(b, c, x, f"model.layers.{layer}.{norms.before}.weight", "norm")
        parts = linear(b, c, h, f"{name}.in_proj", 3 * s.channels, "in", s.has_bias, None)
        with b.part("conv"):
            weight = b.weight(f"{name}.conv.weight", (s.channels, s.width), "float32")
            bias = b.weight(f"{name}.conv.bias", (s.channels,), "float32") if s.has_bias else None
            y = b.cast(b.causal_conv(parts, weight, bias, activation="none", gated=True), c.dtype)
        out = linear(b, c, y, f"{name}.out_proj", c.hidden_size, "out", s.has_bias, None)
        return added(b, c, x, out, layer, "out", norms.behind)
