"""MiniCPM 3: latent attention without experts, embeddings, blocks and logits times numbers of their own."""

from __future__ import annotations

from albireo.json_file import Fields
from albireo.models.blocks.latent_attention import UNREAD, latent_blocks
from albireo.models.config import ConfigRules
from albireo.models.config_keys import MAX_HEADS, MAX_WIDTH
from albireo.models.decoders import youtu
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: Heads of values as wide as the residual stream has room for, which nothing says.
TINY = TINY_LLAMA | {
    "architectures": ["MiniCPM3ForCausalLM"],
    "model_type": "minicpm3",
    "vocab_size": 121,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_key_value_heads": 4,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 14,
    "qk_rope_head_dim": 8,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0, 1.1, 1.3, 1.5],
        "long_factor": [1.0, 1.2, 1.5, 2.0],
        "original_max_position_embeddings": 128,
    },
    "scale_emb": 3.0,
    "scale_depth": 0.7,
    "dim_model_base": 16,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    hidden, heads = fields.integer("hidden_size", 1, MAX_WIDTH), fields.integer("num_attention_heads", 1, MAX_HEADS)
    return latent_blocks(fields, value=hidden // heads)


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "embedding_multiplier", "scale_depth", "dim_model_base"}),
    names={"embedding_multiplier": "scale_emb"},
    blocks=_blocks,
    defaults={
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "scale_emb": 12.0,
        "scale_depth": 1.4,
        "dim_model_base": 256,
        "q_lora_rank": 768,
        "kv_lora_rank": 256,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
    },
    ignorable=UNREAD,
    class_names=("MiniCPM3ForCausalLM",),
)
build = youtu.build
