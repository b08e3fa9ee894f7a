"""MiniMax Text-01 and M1 as transformers has them: lightning attention in most layers, whose states each head leaves at
a rate of its own, softmax attention in the others, experts in all. A block is added to what it reads, which is normed.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import keys
from albireo.models.blocks.experts import Names, mixture
from albireo.models.blocks.head_rows import RowsOf
from albireo.models.blocks.layers import attended, embedding, head, linear, unrounded_norm
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.fading_settings import FadingSettings, parse_fading
from albireo.models.settings.tiny import TINY_LLAMA

#: Heads of 12 keep a state in the first layer and the third; five experts of 28 channels.
TINY = TINY_LLAMA | {
    "architectures": ["MiniMaxForCausalLM"],
    "model_type": "minimax",
    "vocab_size": 119,
    "hidden_size": 40,
    "intermediate_size": 28,
    "num_hidden_layers": 4,
    "head_dim": 12,
    "layer_types": ["linear_attention", "full_attention"] * 2,
    "linear_attn_alpha_factor": 3.5,
    "linear_attn_beta_factor": 0.9,
    "full_attn_alpha_factor": 2.5,
    "full_attn_beta_factor": 1.0,
    "mlp_alpha_factor": 3.0,
    "mlp_beta_factor": 1.1,
    "block_size": 16,
    "rms_norm_eps": 1e-3,
    "rope_theta": 10000000.0,
    "sliding_window": None,
    "num_local_experts": 5,
    "num_experts_per_tok": 2,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=keys("partial_rotary_factor rotary_dim"),
    experts="mixtral",
    mamba=parse_fading,
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 131072},
    # in how many tokens at a time others compute a state
    ignorable=keys("block_size"),
    class_names=("MiniMaxForCausalLM",),
)
#: What the rates of states are made into, which config.json says.
IGNORABLE_WEIGHTS = tuple(
    f"model.layers.*.self_attn.{each}" for each in ("slope_rate", "query_decay", "key_decay", "diagonal_decay")
)
_NAMES = Names("block_sparse_moe", "w1", "w3", "w2")
#: Of the norm behind a state, whatever config.json says of others.
_STATE_EPS = 1e-6


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, rope = GraphBuilder(), config, rope_spec(config, max_model_len)
    of = c.recurrent
    assert isinstance(of, FadingSettings), "the architecture's rules name its keys"
    x = embedding(b, c)
    for layer in range(c.num_layers):
        with b.part(f"layers.{layer}.attn"):
            if of.layers[layer]:
                h, given = _normed(b, c, x, layer, "input_layernorm", of.of_states[0])
                y, factor = _lightning(b, c, h, layer, of), of.of_states[1]
            else:
                h, given = _normed(b, c, x, layer, "input_layernorm", of.of_attention[0])
                y, factor = attended(b, c, h, layer, rope, cache=c.cached_layers.index(layer)), of.of_attention[1]
            x = _added(b, given, y, factor)
        with b.part(f"layers.{layer}.moe"):
            h, given = _normed(b, c, x, layer, "post_attention_layernorm", of.of_ffns[0])
            y = mixture(b, c, h, f"model.layers.{layer}.{_NAMES.block}", _NAMES)
            x = _added(b, given, y, of.of_ffns[1])
    return head(b, c, x)


def _normed(b: GraphBuilder, c: ModelConfig, x: Value, layer: int, name: str, factor: float) -> tuple[Value, Value]:
    """norm(x), rounded, and factor times it in float32, [T, E]."""
    with b.part("norm"):
        h = unrounded_norm(b, c, x, f"model.layers.{layer}.{name}.weight")
        return b.cast(h, c.dtype), h if factor == 1.0 else b.scale(h, factor)


def _added(b: GraphBuilder, given: Value, y: Value, factor: float) -> Value:
    with b.part("out"):
        return b.add(given, y if factor == 1.0 else b.scale(y, factor))


def _lightning(b: GraphBuilder, c: ModelConfig, h: Value, layer: int, of: FadingSettings) -> Value:
    """What states make of the rounded rows h, [T, E] float32: their norm over all heads, times a gate's sigmoid."""
    name, width = f"model.layers.{layer}.self_attn", of.heads * of.head_dim
    # of each head its query, key and value are one below the other; a state is read values, keys, queries
    parts = (2, 1, 0)
    rows = tuple((3 * i + p, 3 * i + p + 1) for p in parts for i in range(of.heads))
    qkv = RowsOf(f"{name}.qkv_proj", tuple((first * of.head_dim, end * of.head_dim) for first, end in rows))
    vkq = linear(b, c, h, f"{name}.vkq", 3 * width, "qkv", False, None, qkv)
    gate = linear(b, c, h, f"{name}.output_gate", width, "z", False, None)
    with b.part("state"):
        shape = {"num_k_heads": of.heads, "num_v_heads": of.heads, "k_dim": of.head_dim, "v_dim": of.head_dim}
        y = b.fading_state(b.unary(vkq, c.hidden_act), of.slopes(layer), **shape)
    with b.part("out_norm"):
        y = b.rms_norm(y, b.weight(f"{name}.norm.weight", (width,), "float32"), _STATE_EPS)
        y = b.cast(b.mul(y, b.unary(gate, "sigmoid")), c.dtype)
    return linear(b, c, y, f"{name}.out_proj", c.hidden_size, "out", False, None)
