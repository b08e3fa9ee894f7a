"""BitNet b1.58: Llama with norms of what attention and the FFN's gate give, relu² behind the gate, and weights that are
-1, 0 or 1 times a number of each matrix, see quantization/formats/bitnet.py.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Value
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.layers import AttentionNames, linear, norm
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["BitNetForCausalLM"],
    "model_type": "bitnet",
    "vocab_size": 109,
    "intermediate_size": 76,
    "rms_norm_eps": 1e-5,
    "hidden_act": "relu2",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    activation="relu2",
    class_names=("BitNetForCausalLM",),
    defaults={"num_key_value_heads": 5, "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "rope_theta": 500000.0},
)
_ATTENTION = AttentionNames(inner_norm="attn_sub_norm")


def _mlp_block(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    """x + down(norm(act(gate(h)) * up(h))) with h = norm(x), [T, E] float32; every rank needs all channels."""
    name, width = f"model.layers.{layer}", c.intermediate_size
    with b.part(f"layers.{layer}.mlp"):
        h = norm(b, c, x, f"{name}.post_attention_layernorm.weight", "norm")
        gate, up = (linear(b, c, h, f"{name}.mlp.{p}_proj", width, p, False, None) for p in ("gate", "up"))
        with b.part("act"):
            m = b.mul(b.unary(gate, c.hidden_act), up)
            weight = b.weight(f"{name}.mlp.ffn_sub_norm.weight", (width,), "float32")
            m = b.cast(b.rms_norm(m, weight, c.rms_norm_eps), c.dtype)
        down = linear(b, c, m, f"{name}.mlp.down_proj", c.hidden_size, "down", False, None)
        with b.part("down"):
            return b.add(x, down)


build = partial(decoder, ffn=_mlp_block, names=AttentionNames(inner_norm="attn_sub_norm"))
