"""EXAONE 4: norms of what is added, each head of q and k normed; where some layers have a window, only they rotate."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import BEHIND_FFN, mlp_block
from albireo.models.blocks.layers import BEHIND_ATTENTION
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer without a window and without rotation.
TINY = TINY_LLAMA | {
    "architectures": ["Exaone4ForCausalLM"],
    "model_type": "exaone4",
    "vocab_size": 117,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "sliding_window": 17,
    "sliding_window_pattern": 2,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    windows="periodic",
    period=4,
    defaults={"num_key_value_heads": 32, "rms_norm_eps": 1e-5},
    rotates_windows=True,
    built_in={"reorder_and_qk_norm": True},
)
build = partial(decoder, ffn=partial(mlp_block, norms=BEHIND_FFN), norms=BEHIND_ATTENTION, qk_norm=True)
