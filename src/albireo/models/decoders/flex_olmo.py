"""FlexOlmo 7x7B: OLMo 2 with experts, whose sum is normed.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.experts import QWEN, normed_moe_block
from albireo.models.blocks.layers import BEHIND_ATTENTION, BEHIND_FFN, attention_block, embedding, head
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig

#: Seven experts, five a token, as published; not renormalized.
TINY = {
    "architectures": ["FlexOlmoForCausalLM"],
    "model_type": "flex_olmo",
    "vocab_size": 107,
    "hidden_size": 48,
    "intermediate_size": 36,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 500000.0,
    "num_experts": 7,
    "num_experts_per_tok": 5,
    "norm_topk_prob": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "bos_token_id": None,
    "pad_token_id": 2,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    experts="olmoe",
    defaults={"rope_theta": 500000.0, "num_experts_per_tok": 5, "max_position_embeddings": 4096},
    class_names=("FlexOlmoForCausalLM",),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b, c, bias = GraphBuilder(), config, config.attention_bias
    rope = rope_spec(c, max_model_len)
    x = embedding(b, c)
    for layer in range(c.num_layers):
        x = attention_block(
            *(b, c, x, layer, rope),
            qkv_bias=bias,
            o_bias=bias,
            qk_norm=True,
            is_norm_wide=True,
            norms=BEHIND_ATTENTION,
        )
        x = normed_moe_block(b, c, x, layer, QWEN, BEHIND_FFN)
    return head(b, c, x)
