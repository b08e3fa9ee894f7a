"""Youtu-LLM: latent attention in an otherwise plain, dense model."""

from __future__ import annotations

from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph
from albireo.json_file import keys
from albireo.models.blocks.feed_forward import mlp_block
from albireo.models.blocks.latent_attention import UNREAD, latent_attention_block, latent_blocks
from albireo.models.blocks.layers import embedding, head
from albireo.models.blocks.rope import latent_rope_spec
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["YoutuForCausalLM"],
    "model_type": "youtu",
    "vocab_size": 121,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 14,
    "qk_rope_head_dim": 8,
    "v_head_dim": 18,
    "rms_norm_eps": 1e-6,
    "attention_bias": True,
    "tie_word_embeddings": True,
    "rope_theta": 1600000.0,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=latent_blocks,
    has_pairs_side_by_side=True,
    defaults={"tie_word_embeddings": True, "q_lora_rank": 1536},
    built_in={"rope_interleave": True},
    ignorable=UNREAD | keys("embedding_initializer_range"),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    b = GraphBuilder()
    rope = latent_rope_spec(config, max_model_len)
    x = embedding(b, config)
    for layer in range(config.num_layers):
        x = latent_attention_block(b, config, x, layer, rope)
        x = mlp_block(b, config, x, layer)
    return head(b, config, x)
