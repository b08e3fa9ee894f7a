"""Qwen 1.5 and 2 with experts (A2.7B, 57B-A14B): Qwen 2's attention; beside its experts every token has a shared
one.
"""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: Seven experts of 44 channels, three a token, not renormalized; a shared one of 70; every second layer is dense.
TINY = TINY_LLAMA | {
    "architectures": ["Qwen2MoeForCausalLM"],
    "model_type": "qwen2_moe",
    "vocab_size": 141,
    "hidden_size": 40,
    "intermediate_size": 58,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "use_sliding_window": False,
    "sliding_window": 32,
    "max_window_layers": 4,
    "num_experts": 7,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 44,
    "shared_expert_intermediate_size": 70,
    "norm_topk_prob": False,
    "decoder_sparse_step": 2,
    "mlp_only_layers": [],
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "bos_token_id": 1,
}

#: Which layers a window is in has changed from one writer to the next: only a list of them is read.
CONFIG = ConfigRules(
    keys=frozenset({"dual_chunk_attention_config"}),
    defaults={"num_key_value_heads": 16},
    windows="by_list",
    experts="qwen_shared",
    built_in={"qkv_bias": True},
)
build = partial(decoder, ffn=moe_block, qkv_bias=True, o_bias=False)
