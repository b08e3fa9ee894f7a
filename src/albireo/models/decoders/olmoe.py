"""OLMoE: experts in every layer, all heads of q and k normed at once.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.experts import moe_block
from albireo.models.blocks.layers import attention_block, embedding, head
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: Nine experts of 44 channels, three a token, not renormalized.
TINY = {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "vocab_size": 125,
    "hidden_size": 40,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "clip_qkv": None,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "num_experts": 9,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(keys=frozenset({"attention_bias", "clip_qkv"}), experts="olmoe", defaults={"rms_norm_eps": 1e-5})


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b, bias = GraphBuilder(), config.attention_bias
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = attention_block(b, config, x, layer, rope, qkv_bias=bias, o_bias=bias, qk_norm=True, is_norm_wide=True)
        x = moe_block(b, config, x, layer)
    return head(b, config, x)
