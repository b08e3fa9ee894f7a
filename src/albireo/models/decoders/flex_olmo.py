"""FlexOlmo 7x7B: OLMo 2 with experts, whose sum is normed."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import QWEN, normed_moe_block
from albireo.models.blocks.feed_forward import BEHIND_FFN
from albireo.models.blocks.layers import BEHIND_ATTENTION
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Seven experts, five a token, as published; not renormalized.
TINY = TINY_LLAMA | {
    "architectures": ["FlexOlmoForCausalLM"],
    "model_type": "flex_olmo",
    "vocab_size": 107,
    "intermediate_size": 36,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_theta": 500000.0,
    "num_experts": 7,
    "num_experts_per_tok": 5,
    "norm_topk_prob": False,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.01,
    "bos_token_id": None,
    "pad_token_id": 2,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    experts="olmoe",
    defaults={"rope_theta": 500000.0, "num_experts_per_tok": 5, "max_position_embeddings": 4096},
    class_names=("FlexOlmoForCausalLM",),
)
build = partial(
    decoder,
    ffn=partial(normed_moe_block, names=QWEN, norms=BEHIND_FFN),
    norms=BEHIND_ATTENTION,
    qk_norm=True,
    is_norm_wide=True,
)
