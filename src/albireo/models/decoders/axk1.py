"""A.X K1: DeepSeek V3, whose experts' sum is normed before it is added."""

from __future__ import annotations

from dataclasses import replace

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.experts import DEEPSEEK, moe_block, normed_moe_block
from albireo.models.blocks.latent_attention import latent_attention_block
from albireo.models.blocks.layers import Norms, embedding, head
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ModelConfig
from albireo.models.decoders import deepseek_v3

TINY = {**deepseek_v3.TINY, "architectures": ["AXK1ForCausalLM"], "model_type": "axk1", "vocab_size": 117}
CONFIG = replace(
    deepseek_v3.CONFIG,
    class_names=("AXK1ForCausalLM",),
    defaults={
        **deepseek_v3.CONFIG.defaults,
        "first_k_dense_replace": 1,
        "num_experts_per_tok": 8,
        "n_routed_experts": 192,
        "moe_intermediate_size": 2048,
    },
)
_NORMS = Norms("post_attention_layernorm", "post_mlp_layernorm")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    rope = latent_rope_spec(config, max_model_len)
    x = embedding(b, config)
    assert config.experts is not None
    for layer in range(config.num_layers):
        x = latent_attention_block(b, config, x, layer, rope)
        if config.experts.layers[layer]:
            x = normed_moe_block(b, config, x, layer, DEEPSEEK, _NORMS)
        else:
            x = moe_block(b, config, x, layer, DEEPSEEK)
    return head(b, config, x)
