"""IQuest Coder: llama."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import llama

TINY = {
    "architectures": ["IQuestCoderForCausalLM"],
    "model_type": "iquestcoder",
    "vocab_size": 127,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}
CONFIG = replace(
    llama.CONFIG,
    head_dim=128,
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "max_position_embeddings": 131072},
    ignorable=frozenset({"auto_map"}),
    class_names=("IQuestCoderForCausalLM", "LlamaForCausalLM"),
)
build = llama.build
