"""Llama 2, 3, 3.1, 3.2 and the many models in their shape."""

from __future__ import annotations

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Grouped heads wider than hidden / heads, both biases, an FFN of no round size, llama3 rope.
TINY = TINY_LLAMA | {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 131,
    "intermediate_size": 86,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "head_dim": 12,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "mlp_bias": True,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "bos_token_id": 1,
    "eos_token_id": [2, 3],
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    activation="gated",
    # of Llama 1, whose first files do not say it
    defaults={"max_position_embeddings": 2048},
    # as Falcon 3 calls what hidden_act says
    built_in={"activation": "swiglu"},
    ignorable=frozenset({"internal_version"}),
)
build = decoder
