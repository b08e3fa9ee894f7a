"""Arcee AFM 4.5B: llama with an FFN of two matrices, with relu².

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import FFNNames, attention_block, embedding, head, mlp_block
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

TINY = {
    "architectures": ["ArceeForCausalLM"],
    "model_type": "arcee",
    "vocab_size": 127,
    "hidden_size": 48,
    "intermediate_size": 90,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "relu2",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32, "mscale": 1.0},
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    activation="relu2",
    defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 4096},
)
#: Also of models whose FFN has other activations.
UP_AND_DOWN = FFNNames(gate="")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b, bias = GraphBuilder(), config.attention_bias
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = attention_block(b, config, x, layer, rope, qkv_bias=bias, o_bias=bias)
        x = mlp_block(b, config, x, layer, bias=config.mlp_bias, names=UP_AND_DOWN)
    return head(b, config, x)
