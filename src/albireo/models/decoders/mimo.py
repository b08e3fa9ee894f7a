"""MiMo 7B: Qwen 2 with layers behind it that guess further tokens, which are left where they lie."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules

#: Heads wider together than the model.
TINY = {
    "architectures": ["MiMoForCausalLM"],
    "model_type": "mimo",
    "vocab_size": 99,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": True,
    "tie_word_embeddings": False,
    "rope_theta": 640000,
    "use_mrope": False,
    "use_sliding_window": False,
    "sliding_window": 32,
    "max_window_layers": 1,
    "num_nextn_predict_layers": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    windows="by_layer",
    defaults={"attention_bias": True},
    ignorable=frozenset({"num_nextn_predict_layers"}),
)
build = partial(decoder, o_bias=False)
