"""GLM-4.7-Flash: DeepSeek V3 with fewer experts and no groups of them."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import deepseek_v3

_WHICH = {key: value for key, value in deepseek_v3.TINY.items() if key not in ("rope_scaling", "first_k_dense_replace")}
TINY = {
    **_WHICH,
    "architectures": ["Glm4MoeLiteForCausalLM"],
    "model_type": "glm4_moe_lite",
    "vocab_size": 119,
    "mlp_layer_types": ["dense", "sparse", "sparse"],
    "n_group": 1,
    "topk_group": 1,
    "qk_nope_head_dim": 14,
}
CONFIG = replace(
    deepseek_v3.CONFIG,
    class_names=(),
    defaults={
        **deepseek_v3.CONFIG.defaults,
        "first_k_dense_replace": 1,
        "rms_norm_eps": 1e-5,
        "q_lora_rank": 768,
        "qk_nope_head_dim": 192,
        "v_head_dim": 256,
        "routed_scaling_factor": 1.8,
        "n_group": 1,
        "topk_group": 1,
    },
)
build = deepseek_v3.build
