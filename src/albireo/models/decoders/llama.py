"""Llama 2, 3, 3.1, 3.2 and the many models in their shape.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import attention_block, embedding, head, mlp_block
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: Grouped heads wider than hidden / heads, both biases, an FFN of no round size, llama3 rope.
TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 131,
    "hidden_size": 48,
    "intermediate_size": 86,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": True,
    "mlp_bias": True,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    # of Llama 1, whose first files do not say it
    defaults={"max_position_embeddings": 2048},
    # as Falcon 3 calls what hidden_act says
    built_in={"activation": "swiglu"},
    ignorable=frozenset({"internal_version"}),
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
