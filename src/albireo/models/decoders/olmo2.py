"""OLMo 2: norms of what blocks add instead of what they read, and of all heads of q and k at once."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.layers import BEHIND_ATTENTION, BEHIND_FFN, mlp_block
from albireo.models.config import ConfigRules

#: As many KV heads as query heads, as the published models have.
TINY = {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "vocab_size": 107,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_act": "silu",
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rope_theta": 500000.0,
    "bos_token_id": None,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(keys=frozenset({"attention_bias"}), defaults={"rms_norm_eps": 1e-5})
build = partial(
    decoder, ffn=partial(mlp_block, norms=BEHIND_FFN), norms=BEHIND_ATTENTION, qk_norm=True, is_norm_wide=True
)
