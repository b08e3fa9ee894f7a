"""SmolLM3: Llama, of which every fourth layer does not rotate queries and keys."""

from __future__ import annotations

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer does not rotate, and has a window.
TINY = TINY_LLAMA | {
    "architectures": ["SmolLM3ForCausalLM"],
    "model_type": "smollm3",
    "vocab_size": 101,
    "intermediate_size": 84,
    "num_hidden_layers": 3,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 2000000.0,
    "no_rope_layer_interval": 2,
    "use_sliding_window": True,
    "sliding_window": 23,
    "bos_token_id": 1,
    # transformers' own is behind this vocabulary
    "pad_token_id": 0,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias"}),
    windows="by_layer",
    defaults={"num_key_value_heads": 4, "tie_word_embeddings": True, "rope_theta": 2000000.0, "sliding_window": None},
    has_layers_without_rope=True,
    ignorable=frozenset({"max_window_layers"}),
)
build = decoder
