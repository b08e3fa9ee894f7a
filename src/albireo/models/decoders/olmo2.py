"""OLMo 2: norms of what blocks add instead of what they read, and of all heads of q and k at once.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import BEHIND_ATTENTION, BEHIND_FFN, attention_block, embedding, head, mlp_block
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: As many KV heads as query heads, as the published models have.
TINY = {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "vocab_size": 107,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 500000.0,
    "bos_token_id": None,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(keys=frozenset({"attention_bias"}), defaults={"rms_norm_eps": 1e-5})


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b, bias = GraphBuilder(), config.attention_bias
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = attention_block(
            b,
            config,
            x,
            layer,
            rope,
            qkv_bias=bias,
            o_bias=bias,
            qk_norm=True,
            is_norm_wide=True,
            norms=BEHIND_ATTENTION,
        )
        x = mlp_block(b, config, x, layer, norms=BEHIND_FFN)
    return head(b, config, x)
