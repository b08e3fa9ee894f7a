"""ERNIE 4.5 (dense): Llama with biases everywhere or nowhere, and rotary pairs side by side."""

from __future__ import annotations

from albireo.models.config import ConfigRules
from albireo.models.decoders import llama
from albireo.models.settings.tiny import TINY_LLAMA

#: Heads wider together than the model.
TINY = TINY_LLAMA | {
    "architectures": ["Ernie4_5ForCausalLM"],
    "model_type": "ernie4_5",
    "vocab_size": 121,
    "hidden_size": 40,
    "intermediate_size": 68,
    "head_dim": 12,
    "rms_norm_eps": 1e-5,
    "use_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 500000.0,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"use_bias"}),
    head_dim=128,
    defaults={"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "tie_word_embeddings": True},
    has_pairs_side_by_side=True,
    # as first published; a bias of the head, where there are any
    built_in={"compression_ratio": 1.0},
    ignorable=frozenset({"weight_share_add_bias"}),
    class_names=("Ernie4_5ForCausalLM", "Ernie4_5_ForCausalLM"),
)
build = llama.build
