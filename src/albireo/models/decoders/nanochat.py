"""nanochat: norms without weights, of embeddings too; of q and k behind their rotation, which turns the other way."""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import keys
from albireo.models.blocks.feed_forward import plain_mlp
from albireo.models.blocks.layers import added, attention, embedding, ending, head_weight, linear
from albireo.models.blocks.layers import queries_keys_values as queries
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["NanoChatForCausalLM"],
    "model_type": "nanochat",
    "vocab_size": 119,
    "intermediate_size": 80,
    "rms_norm_eps": 1e-6,
    "hidden_act": "relu2",
    "attention_bias": False,
    "final_logit_softcapping": 15.0,
    "rope_theta": 10000.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=keys("attention_bias final_logit_softcapping"),
    activation="relu2",
    defaults={
        "intermediate_size": 8192,
        "max_position_embeddings": 2048,
        "final_logit_softcapping": 15.0,
    },
    class_names=("NanoChatForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    rope = rope_spec(c, max_model_len)
    rope = replace(rope, inv_freq=tuple(-frequency for frequency in rope.inv_freq))
    x = embedding(b, c)
    with b.part("embed"):
        x = b.rms_norm(x, None, c.rms_norm_eps)
    for layer in range(c.num_layers):
        x = _layer(b, c, x, layer, rope)
    with b.part("head"):
        y = _normed(b, c, x)
    return ending(b, c, y, head_weight(b, c))


def _layer(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, rope: RopeSpec) -> Value:
    """[T, E] float32."""
    name, bias = f"model.layers.{layer}", c.attention_bias

    def behind(part: str, value: Value) -> Value:
        heads = c.num_heads if part == "q" else c.num_kv_heads
        with b.part(part):
            return b.rms_norm(value, None, c.rms_norm_eps, num_heads=heads)

    with b.part(f"layers.{layer}.attn"):
        parts = queries(b, c, _normed(b, c, x), f"{name}.self_attn", bias=bias)
        a = attention(b, c, parts, layer, rope, None, behind=behind)
        o = linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", bias, "row")
        x = added(b, c, x, o, layer, "o", None)
    with b.part(f"layers.{layer}.mlp"):
        h = _normed(b, c, x)
        down = plain_mlp(b, c, h, f"{name}.mlp", c.intermediate_size, up="fc1", down="fc2")
        return added(b, c, x, down, layer, "down", None)


def _normed(b: GraphBuilder, c: ModelConfig, x: Value) -> Value:
    with b.part("norm"):
        return b.cast(b.rms_norm(x, None, c.rms_norm_eps), c.dtype)
