"""OLMoE: experts in every layer, all heads of q and k normed at once."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import moe_block
from albireo.models.config import ConfigRules

#: Nine experts of 44 channels, three a token, not renormalized.
TINY = {
    "architectures": ["OlmoeForCausalLM"],
    "model_type": "olmoe",
    "vocab_size": 125,
    "hidden_size": 40,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "hidden_act": "silu",
    "attention_bias": False,
    "clip_qkv": None,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
    "num_experts": 9,
    "num_experts_per_tok": 3,
    "norm_topk_prob": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}

CONFIG = ConfigRules(keys=frozenset({"attention_bias", "clip_qkv"}), experts="olmoe", defaults={"rms_norm_eps": 1e-5})
build = partial(decoder, ffn=moe_block, qk_norm=True, is_norm_wide=True)
