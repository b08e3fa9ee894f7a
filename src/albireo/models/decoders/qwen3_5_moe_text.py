"""Qwen 3.5 with experts, text: the layers of the dense one, with experts in place of its FFN, and a shared one."""

from __future__ import annotations

from albireo.models.blocks.gated_delta import hybrid_decoder
from albireo.models.config import ConfigRules
from albireo.models.decoders.qwen3_5_text import GATED, GUESSING
from albireo.models.settings.multipliers import Multipliers
from albireo.models.settings.tiny import TINY_LLAMA

#: As many heads of keys as of values; six experts of 28 channels, two a token, and a shared one of 36.
TINY = TINY_LLAMA | {
    "architectures": ["Qwen3_5MoeForCausalLM"],
    "model_type": "qwen3_5_moe_text",
    "vocab_size": 137,
    "hidden_size": 36,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "attn_output_gate": True,
    "layer_types": ["linear_attention", "linear_attention", "full_attention"],
    "linear_conv_kernel_dim": 3,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 3,
    "linear_num_value_heads": 3,
    "linear_value_head_dim": 24,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000000.0, "partial_rotary_factor": 0.25},
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 28,
    "shared_expert_intermediate_size": 36,
    "mlp_only_layers": [],
    "router_aux_loss_coef": 0.001,
    "mtp_num_hidden_layers": 1,
    "mamba_ssm_dtype": "float32",
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    head_dim=256,
    experts="qwen3_5",
    built_in={"attn_output_gate": True, "mamba_ssm_dtype": "float32", "norm_topk_prob": True, "decoder_sparse_step": 1},
    defaults={"num_key_value_heads": 2, "partial_rotary_factor": 0.25},
    multipliers=Multipliers(norm_plus=1.0),
    blocks=GATED,
    recurrent="by_part",
    ignorable=GUESSING,
    class_names=("Qwen3_5MoeForCausalLM",),
    # nothing has this width: every layer has experts
    ffn_factor=1,
)
build = hybrid_decoder
