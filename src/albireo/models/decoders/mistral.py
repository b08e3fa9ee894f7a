"""Mistral 7B: Llama with a sliding window in every layer, or none, and no biases.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import attention_block, embedding, head, mlp_block, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: One KV head, a window shorter than any test prompt, heads narrower than hidden / heads.
TINY = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "vocab_size": 97,
    "hidden_size": 40,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "rope_theta": 1000000.0,
    "sliding_window": 7,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(defaults={"num_key_value_heads": 8}, windows="every_layer")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b = GraphBuilder()
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer, window in enumerate(windows(config, max_model_len)):
        x = attention_block(b, config, x, layer, rope, window=window)
        x = mlp_block(b, config, x, layer)
    return head(b, config, x)
