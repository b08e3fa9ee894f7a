"""MiMo 7B: Qwen 2 with layers behind it that guess further tokens, which are left where they lie."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Heads wider together than the model.
TINY = TINY_LLAMA | {
    "architectures": ["MiMoForCausalLM"],
    "model_type": "mimo",
    "vocab_size": 99,
    "hidden_size": 40,
    "intermediate_size": 68,
    "head_dim": 12,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "rope_theta": 640000,
    "use_mrope": False,
    "use_sliding_window": False,
    "sliding_window": 32,
    "max_window_layers": 1,
    "num_nextn_predict_layers": 1,
    "bos_token_id": 0,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    windows="by_layer",
    defaults={"attention_bias": True},
    ignorable=frozenset({"num_nextn_predict_layers"}),
)
build = partial(decoder, o_bias=False)
