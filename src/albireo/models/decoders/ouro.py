"""Ouro 1.4B and 2.6B: llama with norms around both blocks, whose layers are gone through several times, each time with
a norm behind them and a KV cache of its own.

All times are gone through, as early_exit_threshold 1 says; what would end them early is left where it lies.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.layers import (
    attention,
    embedding,
    ending,
    head_weight,
    linear,
    norm,
    queries_keys_values,
    unrounded_norm,
)
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["OuroForCausalLM"],
    "model_type": "ouro",
    "vocab_size": 127,
    "intermediate_size": 72,
    "head_dim": 12,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "total_ut_steps": 3,
    "early_exit_threshold": 1.0,
    "layer_types": ["full_attention", "full_attention"],
    "sliding_window": None,
    "use_sliding_window": False,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for more layers than are computed; UnsupportedModel for windows."""
    layers, times = fields.integer("num_hidden_layers", 1, MAX_LAYERS), fields.integer("total_ut_steps", 1, 64, 4)
    if layers * times > MAX_LAYERS:
        fields.fail("total_ut_steps", times, f"makes {layers * times} layers; at most {MAX_LAYERS} are computed")
    kinds = fields.texts("layer_types")
    if set(kinds) - {"full_attention"}:
        fields.unsupported("layer_types", list(kinds), "supported: full_attention")
    return BlockSettings(num_layers=layers * times, times=times)


CONFIG = ConfigRules(
    windows="read_elsewhere",
    blocks=_blocks,
    built_in={"early_exit_threshold": 1.0, "early_exit_step": None},
    ignorable=keys("max_window_layers"),
    class_names=("OuroForCausalLM",),
)
IGNORABLE_WEIGHTS = ("model.early_exit_gate.*",)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, rope = GraphBuilder(), config, rope_spec(config, max_model_len)
    x, told = embedding(b, c), c.num_layers // c.blocks.times
    for layer in range(c.num_layers):
        x = _layer(b, c, x, f"model.layers.{layer % told}", layer, rope)
        if (layer + 1) % told == 0 and layer + 1 < c.num_layers:
            with b.part(f"layers.{layer}.behind"):
                x = unrounded_norm(b, c, x, "model.norm.weight")
    with b.part("head"):
        y = norm(b, c, x, "model.norm.weight", "norm")
    return ending(b, c, y, head_weight(b, c))


def _layer(b: GraphBuilder, c: ModelConfig, x: Value, name: str, layer: int, rope: RopeSpec) -> Value:
    """[T, E] float32. Args: name: of the layer in the file. layer: of its KV cache."""
    with b.part(f"layers.{layer}.attn"):
        h = norm(b, c, x, f"{name}.input_layernorm.weight", "norm")
        parts = queries_keys_values(b, c, h, f"{name}.self_attn", bias=False)
        a = attention(b, c, parts, layer, rope, None)
        o = linear(b, c, a, f"{name}.self_attn.o_proj", c.hidden_size, "o", False, "row")
        with b.part("behind"):
            x = b.add(x, unrounded_norm(b, c, o, f"{name}.input_layernorm_2.weight"))
    with b.part(f"layers.{layer}.mlp"):
        h = norm(b, c, x, f"{name}.post_attention_layernorm.weight", "norm")
        down = gated_mlp(b, c, h, f"{name}.mlp", c.intermediate_size)
        with b.part("behind"):
            return b.add(x, unrounded_norm(b, c, down, f"{name}.post_attention_layernorm_2.weight"))
