"""Qwen 3 Next (80B-A3B): the layers of Qwen 3.5 with experts, whose projections of one layer lie in two tensors, head
by head.
"""

from __future__ import annotations

from albireo.models.blocks.gated_delta import hybrid_decoder
from albireo.models.config import ConfigRules
from albireo.models.decoders.qwen3_5_text import GATED
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.tiny import TINY_LLAMA

#: Values of four heads share keys of two; the second layer has attention, the third one FFN and no experts.
TINY = TINY_LLAMA | {
    "architectures": ["Qwen3NextForCausalLM"],
    "model_type": "qwen3_next",
    "vocab_size": 131,
    "hidden_size": 40,
    "intermediate_size": 52,
    "num_hidden_layers": 4,
    "head_dim": 16,
    "partial_rotary_factor": 0.25,
    "full_attention_interval": 2,
    "layer_types": ["linear_attention", "full_attention", "linear_attention", "full_attention"],
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 12,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000000.0,
    "rope_scaling": None,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 28,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [2],
    "norm_topk_prob": True,
    "router_aux_loss_coef": 0.001,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    head_dim=256,
    experts="qwen_shared",
    defaults={"num_key_value_heads": 2, "partial_rotary_factor": 0.25, "norm_topk_prob": True},
    multipliers=Multipliers(norm_plus=1.0),
    blocks=GATED,
    recurrent="by_head",
    class_names=("Qwen3NextForCausalLM",),
)
build = hybrid_decoder
