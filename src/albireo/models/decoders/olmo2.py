"""OLMo 2: norms of what blocks add instead of what they read, and of all heads of q and k at once."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import BEHIND_FFN, mlp_block
from albireo.models.blocks.layers import BEHIND_ATTENTION
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: As many KV heads as query heads, as the published models have.
TINY = TINY_LLAMA | {
    "architectures": ["Olmo2ForCausalLM"],
    "model_type": "olmo2",
    "vocab_size": 107,
    "intermediate_size": 80,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_theta": 500000.0,
    "bos_token_id": None,
}

CONFIG = ConfigRules(keys=frozenset({"attention_bias"}), defaults={"rms_norm_eps": 1e-5})
build = partial(
    decoder, ffn=partial(mlp_block, norms=BEHIND_FFN), norms=BEHIND_ATTENTION, qk_norm=True, is_norm_wide=True
)
