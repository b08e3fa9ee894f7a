"""ERNIE 4.5 (dense): Llama with biases everywhere or nowhere, and rotary pairs side by side.


Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import attention_block, embedding, head, mlp_block
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: Heads wider together than the model.
TINY = {
    "architectures": ["Ernie4_5ForCausalLM"],
    "model_type": "ernie4_5",
    "vocab_size": 121,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "use_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"use_bias"}),
    head_dim=128,
    defaults={"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True},
    has_pairs_side_by_side=True,
    # as first published; a bias of the head, where there are any
    built_in={"compression_ratio": 1.0},
    ignorable=frozenset({"weight_share_add_bias"}),
    class_names=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b, bias = GraphBuilder(), config.attention_bias
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = attention_block(b, config, x, layer, rope, qkv_bias=bias, o_bias=bias)
        x = mlp_block(b, config, x, layer, bias=config.mlp_bias)
    return head(b, config, x)
