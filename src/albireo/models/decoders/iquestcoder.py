"""IQuest Coder: llama."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import llama
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["IQuestCoderForCausalLM"],
    "model_type": "iquestcoder",
    "vocab_size": 127,
    "intermediate_size": 72,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
}
CONFIG = replace(
    llama.CONFIG,
    head_dim=128,
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072},
    ignorable=frozenset({"auto_map"}),
    class_names=("IQuestCoderForCausalLM", "LlamaForCausalLM"),
)
build = llama.build
