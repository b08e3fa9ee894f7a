"""OLMo 3: OLMo 2 with a window in three of four layers, whose rotation is not scaled."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import BEHIND_FFN, mlp_block
from albireo.models.blocks.layers import BEHIND_ATTENTION
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer without a window and with scaled rotation.
TINY = TINY_LLAMA | {
    "architectures": ["Olmo3ForCausalLM"],
    "model_type": "olmo3",
    "vocab_size": 111,
    "intermediate_size": 76,
    "num_hidden_layers": 3,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_theta": 500000.0,
    "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "sliding_window": 18,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "bos_token_id": None,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    windows="periodic",
    period=4,
    defaults={"rms_norm_eps": 1e-5, "rope_theta": 500000.0},
    has_local_rope=True,
    local_theta=None,
)
build = partial(
    decoder, ffn=partial(mlp_block, norms=BEHIND_FFN), norms=BEHIND_ATTENTION, qk_norm=True, is_norm_wide=True
)
