"""Hunyuan 3: norms of each head of q and k; experts chosen by sigmoids and a bias, beside a shared one."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: The first layer is dense.
TINY = TINY_LLAMA | {
    "architectures": ["HYV3ForCausalLM"],
    "model_type": "hy_v3",
    "vocab_size": 121,
    "intermediate_size": 72,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "rope_theta": 11158840.0,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "num_shared_experts": 1,
    "moe_intermediate_size": 28,
    "router_scaling_factor": 2.5,
    "mlp_layer_types": ["dense", "sparse"],
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    keys=keys("attention_bias"),
    experts="deepseek",
    head_dim=128,
    names={
        "n_routed_experts": "num_experts",
        "n_shared_experts": "num_shared_experts",
        "routed_scaling_factor": "router_scaling_factor",
    },
    defaults={
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-5,
        "rope_theta": 11158840.0,
        "num_shared_experts": 1,
        "router_scaling_factor": 2.826,
        "first_k_dense_replace": 1,
        "max_position_embeddings": 131072,
    },
    built_in={
        "qk_norm": True,
        "route_norm": True,
        "moe_router_use_sigmoid": True,
        "moe_router_enable_expert_bias": True,
    },
    # sums are of float32 anyway
    ignorable=keys(
        "enable_moe_fp32_combine enable_attention_fp32_softmax enable_lm_head_fp32 num_nextn_predict_layers auto_map"
    ),
    class_names=("HYV3ForCausalLM",),
)
_NAMES = Names(router="router.gate", bias="expert_bias", shared="shared_mlp")
build = partial(decoder, ffn=partial(moe_block, names=_NAMES), qk_norm=True)
