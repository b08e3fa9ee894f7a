"""MiMo 7B: Qwen 2 with layers behind it that guess further tokens, which are left where they lie.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import attention_block, embedding, head, mlp_block, windows
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: Heads wider together than the model.
TINY = {
    "architectures": ["MiMoForCausalLM"],
    "model_type": "mimo",
    "vocab_size": 99,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": True,
    "tie_word_embeddings": False,
    "rope_theta": 640000,
    "use_mrope": False,
    "use_sliding_window": False,
    "sliding_window": 32,
    "max_window_layers": 1,
    "num_nextn_predict_layers": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    windows="by_layer",
    defaults={"attention_bias": True},
    ignorable=frozenset({"num_nextn_predict_layers"}),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b = GraphBuilder()
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer, window in enumerate(windows(config, max_model_len)):
        x = attention_block(b, config, x, layer, rope, window=window, qkv_bias=config.attention_bias)
        x = mlp_block(b, config, x, layer)
    return head(b, config, x)
