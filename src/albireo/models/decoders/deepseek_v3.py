"""DeepSeek V3, V3.1 and R1: latent attention, experts chosen by sigmoids and a bias in groups, beside a shared one."""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.blocks.latent_attention import UNREAD, latent_attention_block, latent_blocks
from albireo.models.blocks.layers import embedding, head
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LATENT

#: Twelve experts of 36 channels in four groups, of which two are open to a token; the first layer is dense.
TINY = TINY_LATENT | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 131,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 0.8,
    },
    "n_shared_experts": 2,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
    "eos_token_id": [2, 3],
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=latent_blocks,
    experts="deepseek",
    has_pairs_side_by_side=True,
    defaults={
        "n_shared_experts": 1,
        "first_k_dense_replace": 3,
        "q_lora_rank": 1536,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "routed_scaling_factor": 2.5,
        "n_group": 8,
        "topk_group": 4,
    },
    built_in={**SIGMOIDS, "rope_interleave": True},
    ignorable=UNREAD,
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    rope = latent_rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = latent_attention_block(b, config, x, layer, rope)
        x = moe_block(b, config, x, layer, DEEPSEEK)
    return head(b, config, x)
