"""GLM-4 and GLM-Z1 of 0414: GLM with norms of what is added, too.


Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.layers import Norms, attention_block, embedding, head, mlp_block
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: Half of each head rotated.
TINY = {
    "architectures": ["Glm4ForCausalLM"],
    "model_type": "glm4",
    "vocab_size": 115,
    "hidden_size": 48,
    "intermediate_size": 84,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1.5625e-07,
    "hidden_act": "silu",
    "attention_bias": True,
    "tie_word_embeddings": False,
    "partial_rotary_factor": 0.5,
    "rope_theta": 10000.0,
    "eos_token_id": [2, 3],
    "pad_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    head_dim=128,
    defaults={
        "num_key_value_heads": 2,
        "attention_bias": True,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1.5625e-07,
    },
    has_pairs_side_by_side=True,
    ignorable=frozenset({"num_nextn_predict_layers"}),
)

_ATTENTION = Norms("input_layernorm", "post_self_attn_layernorm")
_FFN = Norms("post_attention_layernorm", "post_mlp_layernorm")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b = GraphBuilder()
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = attention_block(b, config, x, layer, rope, qkv_bias=config.attention_bias, norms=_ATTENTION)
        x = mlp_block(b, config, x, layer, joined="gate_up_proj", norms=_FFN)
    return head(b, config, x)
