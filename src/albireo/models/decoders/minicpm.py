"""MiniCPM 1, 2 and 4: llama, with embeddings, blocks and logits times numbers of their own."""

from __future__ import annotations

from albireo.json_file import keys
from albireo.models.config import ConfigRules
from albireo.models.decoders import llama
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["MiniCPMForCausalLM"],
    "model_type": "minicpm",
    "vocab_size": 127,
    "intermediate_size": 72,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "scale_emb": 3.0,
    "scale_depth": 0.7,
    "dim_model_base": 16,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "embedding_multiplier", "scale_depth", "dim_model_base"}),
    names={"embedding_multiplier": "scale_emb"},
    defaults={
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        "scale_emb": 1.0,
        "scale_depth": 1.0,
        "dim_model_base": 1,
    },
    ignorable=keys("auto_map mup_denominator"),
    class_names=("MiniCPMForCausalLM",),
)
build = llama.build
