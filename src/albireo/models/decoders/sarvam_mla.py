"""Sarvam 105B: DeepSeek V3 without groups, under other names of some keys."""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import keys
from albireo.models.decoders import deepseek_v3

TINY = {
    **deepseek_v3.TINY,
    "architectures": ["SarvamMLAForCausalLM"],
    "model_type": "sarvam_mla",
    "vocab_size": 123,
    "q_lora_rank": None,
    "n_group": 1,
    "topk_group": 1,
}
CONFIG = replace(
    deepseek_v3.CONFIG,
    class_names=("SarvamMLAForCausalLM", "DeepseekV3ForCausalLM"),
    older_names={"num_experts": "n_routed_experts", "num_shared_experts": "n_shared_experts"},
    deciding=frozenset({"num_experts", "num_shared_experts"}),
    defaults={
        **deepseek_v3.CONFIG.defaults,
        "q_lora_rank": None,
        "first_k_dense_replace": 1,
        "n_routed_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 2048,
        "routed_scaling_factor": 2.5,
        "n_group": 1,
        "topk_group": 1,
    },
    built_in={**deepseek_v3.CONFIG.built_in, "moe_router_enable_expert_bias": True},
    ignorable=deepseek_v3.CONFIG.ignorable | keys("q_head_dim"),
)
build = deepseek_v3.build
