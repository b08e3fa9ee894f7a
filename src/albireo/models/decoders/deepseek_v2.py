"""DeepSeek V2 and V2-Lite: V3's layers, whose experts are chosen by a softmax in groups."""

from __future__ import annotations

from dataclasses import replace

from albireo.models.decoders import deepseek_v3

#: Queries of the residual stream itself.
TINY = {
    **{key: value for key, value in deepseek_v3.TINY.items() if key != "num_nextn_predict_layers"},
    "architectures": ["DeepseekV2ForCausalLM"],
    "model_type": "deepseek_v2",
    "vocab_size": 127,
    "q_lora_rank": None,
    "rope_scaling": {
        "type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 0.7,
        "mscale_all_dim": 0.7,
    },
    "norm_topk_prob": False,
    "topk_method": "group_limited_greedy",
    "scoring_func": "softmax",
}
CONFIG = replace(
    deepseek_v3.CONFIG,
    experts="deepseek_v2",
    defaults={
        **deepseek_v3.CONFIG.defaults,
        "n_shared_experts": 2,
        "first_k_dense_replace": 0,
        "routed_scaling_factor": 1.0,
        "n_group": 1,
        "topk_group": 1,
    },
    built_in={"scoring_func": "softmax", "norm_topk_prob": False, "moe_layer_freq": 1},
)
build = deepseek_v3.build
