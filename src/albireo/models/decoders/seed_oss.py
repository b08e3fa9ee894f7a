"""Seed-OSS: Llama whose biases of q, k and v, of what attention gives, and of the FFN are said one by one."""

from __future__ import annotations

from albireo.graph.node import Graph
from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.tiny import TINY_LLAMA

#: Heads wider together than the model.
TINY = TINY_LLAMA | {
    "architectures": ["SeedOssForCausalLM"],
    "model_type": "seed_oss",
    "vocab_size": 119,
    "hidden_size": 40,
    "intermediate_size": 72,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "attention_bias": True,
    "attention_out_bias": False,
    "mlp_bias": False,
    "residual_dropout": 0.1,
    "rope_theta": 10000000.0,
    "rope_scaling": {"rope_type": "default"},
    "bos_token_id": 0,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "attention_out_bias", "mlp_bias"}),
    head_dim=128,
    defaults={"num_key_value_heads": 8, "attention_bias": True},
    ignorable=frozenset({"residual_dropout"}),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    return decoder(config, max_model_len, o_bias=config.attention_out_bias)
