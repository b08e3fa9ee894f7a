"""GPT, the first: norms behind what blocks add and none before; gpt2's tensors, whose matrices lie transposed
(rearranged.py), under the names of one without a head.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Value
from albireo.json_file import keys
from albireo.models.blocks.feed_forward import plain_mlp
from albireo.models.blocks.layers import attention, ending, linear, queries_keys_values, unrounded_norm
from albireo.models.blocks.rope import no_rotation
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings

TINY = {
    "architectures": ["OpenAIGPTLMHeadModel"],
    "model_type": "openai-gpt",
    "vocab_size": 113,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "layer_norm_epsilon": 1e-5,
    "afn": "gelu",
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}
CONFIG = ConfigRules(
    names={
        "hidden_size": "n_embd",
        "num_hidden_layers": "n_layer",
        "num_attention_heads": "n_head",
        "max_position_embeddings": "n_positions",
        "rms_norm_eps": "layer_norm_epsilon",
        "hidden_act": "afn",
    },
    blocks=BlockSettings(is_layer_norm=True, qkv_bias=True, o_bias=True, ffn_bias=True),
    ffn_factor=4,
    has_rope=False,
    activation="tanh_of_gelu",
    defaults={
        "vocab_size": 40478,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 512,
        "layer_norm_epsilon": 1e-5,
        "afn": "gelu",
        "tie_word_embeddings": True,
    },
    ignorable=keys(
        "n_ctx n_special predict_special_tokens summary_type summary_use_proj summary_activation",
        "summary_proj_to_labels summary_first_dropout",
    ),
    class_names=("OpenAIGPTLMHeadModel",),
)
_TABLE, _POSITIONS = "transformer.tokens_embed.weight", "transformer.positions_embed.weight"


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b, c = GraphBuilder(), config
    table = b.weight(_TABLE, (c.vocab_size, c.hidden_size), c.dtype)
    with b.part("embed"):
        x = b.embed(b.token_ids, table)
    with b.part("positions"):
        places = b.weight(_POSITIONS, (c.max_position_embeddings, c.hidden_size), c.dtype)
        x = b.add(x, b.embed(b.positions, places))
    for layer in range(c.num_layers):
        x = _layer(b, c, x, layer)
    with b.part("head.norm"):
        y = b.cast(x, c.dtype)
    return ending(b, c, y, table)


def _layer(b: GraphBuilder, c: ModelConfig, x: Value, layer: int) -> Value:
    """norm(n + FFN(n)) with n = norm(x + attention(x)), [T, E] float32."""
    name = f"transformer.h.{layer}"
    with b.part(f"layers.{layer}.attn"):
        with b.part("norm"):
            h = b.cast(x, c.dtype)
        parts = queries_keys_values(b, c, h, f"{name}.attn", bias=True, joined="c_attn")
        a = attention(b, c, parts, layer, no_rotation(c), None)
        o = linear(b, c, a, f"{name}.attn.c_proj", c.hidden_size, "o", True, "row")
        with b.part("behind"):
            x = unrounded_norm(b, c, b.add(x, o), f"{name}.ln_1.weight")
    with b.part(f"layers.{layer}.mlp"):
        with b.part("norm"):
            h = b.cast(x, c.dtype)
        down = plain_mlp(b, c, h, f"{name}.mlp", c.intermediate_size, bias=True, up="c_fc", down="c_proj")
        with b.part("behind"):
            x = b.add(x, down)
    is_last = layer + 1 == c.num_layers  # whose norm is that of the head
    with b.part("head.norm" if is_last else f"layers.{layer}.mlp.behind"):
        return unrounded_norm(b, c, x, f"{name}.ln_2.weight")
