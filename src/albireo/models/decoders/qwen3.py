"""Qwen 3 (dense): each head of q and k is RMS-normalized before RoPE; no biases unless asked for.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import attention_block, embedding, head, mlp_block, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: Tied, heads twice as wide together as the model, head_dim 16.
TINY = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151,
    "hidden_size": 32,
    "intermediate_size": 52,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 1000000,
    "rope_scaling": None,
    "use_sliding_window": False,
    "sliding_window": None,
    "max_window_layers": 2,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

#: transformers' head_dim when the file names none; it is not hidden / heads.
CONFIG = ConfigRules(
    defaults={"num_key_value_heads": 32},
    keys=frozenset({"dual_chunk_attention_config", "attention_bias"}),
    windows="by_layer",
    head_dim=128,
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b, bias = GraphBuilder(), config.attention_bias
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer, window in enumerate(windows(config, max_model_len)):
        x = attention_block(b, config, x, layer, rope, window=window, qkv_bias=bias, o_bias=bias, qk_norm=True)
        x = mlp_block(b, config, x, layer)
    return head(b, config, x)
