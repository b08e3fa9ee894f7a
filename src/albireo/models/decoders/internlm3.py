"""InternLM 3: llama with other names of what has biases."""

from __future__ import annotations

from albireo.graph.node import Graph
from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["InternLM3ForCausalLM"],
    "model_type": "internlm3",
    "vocab_size": 127,
    "intermediate_size": 72,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "qkv_bias": True,
    "bias": True,
    "rope_theta": 50000000.0,
    "rope_scaling": {"rope_type": "dynamic", "factor": 6.0},
    "bos_token_id": 1,
    "pad_token_id": 2,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    older_names={"qkv_bias": "attention_bias", "bias": "mlp_bias"},
    head_dim=128,
    defaults={"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 32768},
    # of the same layers, which transformers has under this name
    ignorable=frozenset({"auto_map"}),
    class_names=("InternLM3ForCausalLM", "LlamaForCausalLM"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    return decoder(config, max_model_len, o_bias=config.mlp_bias)
