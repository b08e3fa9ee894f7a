"""HRM-Text: two stacks of layers, of which one is gone through several times before each time of the other; tokens of a
prompt see each other.

Source: Wang et al. 2025, Hierarchical Reasoning Model.

A layer has a KV cache of each time that it is gone through. So what here is a layer is one time of a layer in the file.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.graph.ops import RopeSpec
from albireo.json_file import Fields, keys
from albireo.models.blocks.feed_forward import gated_mlp
from albireo.models.blocks.layers import attention, embedding, ending, head_weight, linear, queries_keys_values
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings, Stacks
from albireo.models.settings.layer_kinds import MAX_LAYERS
from albireo.models.settings.multipliers import Multipliers

_SLOW, _FAST = "H_module", "L_module"
#: Two layers of each stack, either of which is gone through twice.
TINY = {
    "architectures": ["HrmTextForCausalLM"],
    "model_type": "hrm_text",
    "vocab_size": 131,
    "hidden_size": 40,
    "intermediate_size": 60,
    "num_hidden_layers": 8,
    "num_layers_per_stack": 2,
    "num_attention_heads": 4,
    "head_dim": 12,
    "hidden_act": "silu",
    "max_position_embeddings": 128,
    "initializer_range": 0.5,
    "embedding_scale": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 10000.0,
    "H_cycles": 2,
    "L_cycles": 1,
    "L_bp_cycles": [2],
    "prefix_lm": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError for a missing or impossible value."""
    said = fields.integer("num_hidden_layers", 1, MAX_LAYERS)
    slow, fast = (fields.integer(key, 1, MAX_LAYERS) for key in ("H_cycles", "L_cycles"))
    size = fields.optional_integer("num_layers_per_stack", 1, MAX_LAYERS)
    stacks = Stacks(size or said, slow, fast)
    # as transformers writes it, once it has seen how many layers there are
    if size is not None and said != stacks.num_layers:
        fields.fail("num_hidden_layers", said, f"must be {stacks.num_layers}: a layer for each time that one is used")
    if stacks.num_layers > MAX_LAYERS:
        fields.fail("H_cycles", slow, f"makes {stacks.num_layers} layers; at most {MAX_LAYERS} are computed")
    return BlockSettings(num_layers=stacks.num_layers, stacks=stacks, sees_prompts=fields.flag("prefix_lm", True))


def _multipliers(fields: Fields, known: frozenset[str], default: Multipliers) -> Multipliers:
    begun = fields.number("initializer_range", 1e-6, 1.0, default=0.02)
    return Multipliers(embedding=fields.optional_number("embedding_scale", 1e-6, 1e6) or 1 / begun)


CONFIG = ConfigRules(
    keys=keys("attention_bias mlp_bias"),
    blocks=_blocks,
    own_multipliers=_multipliers,
    head_dim=128,
    defaults={"H_cycles": 2, "L_cycles": 3, "max_position_embeddings": 2048},
    # of training
    ignorable=keys("L_bp_cycles"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c, stacks = GraphBuilder(), config, config.blocks.stacks
    assert stacks is not None, "the architecture's rules read it"
    rope = rope_spec(c, max_model_len)
    slow, fast, layer = embedding(b, c), None, 0
    for _ in range(stacks.slow):
        for _ in range(stacks.fast):
            with b.part(f"layers.{layer}.joined"):
                if fast is None:
                    both = b.shift(slow, b.weight("model.z_L_init", (c.hidden_size,), "float32"))
                else:
                    both = b.add(fast, slow)
            fast = _stack(b, c, both, f"model.{_FAST}", layer, rope)
            layer += stacks.size
        assert fast is not None
        with b.part(f"layers.{layer}.joined"):
            both = b.add(slow, fast)
        slow = _stack(b, c, both, f"model.{_SLOW}", layer, rope)
        layer += stacks.size
    with b.part("head.norm"):
        y = b.cast(slow, c.dtype)
    return ending(b, c, y, head_weight(b, c))


def _stack(b: GraphBuilder, c: ModelConfig, x: Value, name: str, first: int, rope: RopeSpec) -> Value:
    """What the layers of a stack make of x, normed, [T, E] float32. Args: first: of its layers, this time."""
    assert c.blocks.stacks is not None
    for told in range(c.blocks.stacks.size):
        x = _layer(b, c, x, f"{name}.layers.{told}", first + told, rope)
    last = first + c.blocks.stacks.size - 1
    with b.part(f"layers.{last}.behind" if last + 1 < c.num_layers else "head.norm"):
        return b.rms_norm(x, None, c.rms_norm_eps)


def _layer(b: GraphBuilder, c: ModelConfig, x: Value, name: str, layer: int, rope: RopeSpec) -> Value:
    """[T, E] float32. Args: name: of the layer in the file. layer: of its KV cache."""
    bias, block = c.attention_bias, f"{name}.self_attn"
    with b.part(f"layers.{layer}.attn"):
        h = _normed(b, c, x)
        parts = queries_keys_values(b, c, h, block, bias=bias)
        gate = linear(b, c, h, f"{block}.gate_proj", c.num_heads * c.head_dim, "q_gate", bias, "heads")
        a = attention(b, c, parts, layer, rope, None, gate=gate)
        o = linear(b, c, a, f"{block}.o_proj", c.hidden_size, "o", bias, "row")
        with b.part("o"):
            x = b.add(x, o)
    with b.part(f"layers.{layer}.mlp"):
        down = gated_mlp(b, c, _normed(b, c, x), f"{name}.mlp", c.intermediate_size, bias=c.mlp_bias)
        with b.part("down"):
            return b.add(x, down)


def _normed(b: GraphBuilder, c: ModelConfig, x: Value) -> Value:
    with b.part("norm"):
        return b.cast(b.rms_norm(x, None, c.rms_norm_eps), c.dtype)
