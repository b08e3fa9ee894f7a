"""OLMoE: experts in every layer, all heads of q and k normed at once."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Nine experts of 44 channels, three a token, not renormalized.
TINY = TINY_LLAMA | {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "vocab_size": 125,
    "hidden_size": 40,
    "intermediate_size": 44,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "clip_qkv": None,
    "rope_theta": 10000.0,
    "num_experts": 9,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
}

CONFIG = ConfigRules(keys=frozenset({"attention_bias", "clip_qkv"}), experts="olmoe", defaults={"rms_norm_eps": 1e-5})
build = partial(decoder, ffn=moe_block, qk_norm=True, is_norm_wide=True)
