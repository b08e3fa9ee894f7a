"""Gemma 2: Gemma with norms of what is added, capped scores and logits, and a window in every other layer."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.feed_forward import AROUND_FFN, mlp_block
from albireo.models.blocks.layers import AROUND_ATTENTION
from albireo.models.config import ConfigRules
from albireo.models.settings.multipliers import GEMMA

#: Caps that bite, a scale of scores that is not the root of the head's width, a window.
TINY = {
    "architectures": ["Gemma2ForCausalLM"],
    "model_type": "gemma2",
    "vocab_size": 137,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "hidden_activation": "gelu_pytorch_tanh",
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "query_pre_attn_scalar": 24,
    "sliding_window": 19,
    "attn_logit_softcapping": 2.5,
    "final_logit_softcapping": 1.5,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping"}),
    windows="periodic",
    period=2,
    head_dim=256,
    defaults={
        "num_key_value_heads": 4,
        "tie_word_embeddings": True,
        "query_pre_attn_scalar": 256,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    },
    activation="gelu_said",
    multipliers=GEMMA,
    # in the 9B's file; sliding_window is read
    ignorable=keys("sliding_window_size"),
)
build = partial(decoder, ffn=partial(mlp_block, norms=AROUND_FFN), norms=AROUND_ATTENTION)
