"""Solar Open 100B: llama's attention; in every layer experts chosen by sigmoids and a bias, beside a shared one.

Found by models/__init__.py by file name. Does not know devices.
"""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.blocks.layers import attention_block, embedding, head
from albireo.models.blocks.rope import rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.expert_settings import SIGMOIDS

#: Eight experts of 36 channels in four groups, of which two are open to a token.
TINY = {
    "architectures": ["SolarOpenForCausalLM"],
    "model_type": "solar_open",
    "vocab_size": 131,
    "hidden_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 1000000.0,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=keys("attention_bias"),
    experts="deepseek",
    head_dim=128,
    defaults={
        "num_key_value_heads": 8,
        # of layers without experts, of which there are none
        "intermediate_size": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "n_shared_experts": 1,
        "max_position_embeddings": 131072,
    },
    built_in=SIGMOIDS,
    ignorable=keys("auto_map"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    b = GraphBuilder()
    rope = rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = attention_block(b, config, x, layer, rope, qkv_bias=config.attention_bias)
        x = moe_block(b, config, x, layer, DEEPSEEK)
    return head(b, config, x)
