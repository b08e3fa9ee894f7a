"""K-EXAONE: attention of EXAONE 4, but norms of what is read; experts by sigmoids and a bias, beside a shared one."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer without a window and without rotation; the first is dense.
TINY = TINY_LLAMA | {
    "architectures": ["ExaoneMoeForCausalLM"],
    "model_type": "exaone_moe",
    "vocab_size": 117,
    "intermediate_size": 72,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1000000.0,
    "sliding_window": 17,
    "sliding_window_pattern": "LG",
    "layer_types": ["sliding_attention", "full_attention"],
    "mlp_layer_types": ["dense", "sparse"],
    "first_k_dense_replace": 1,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 28,
    "num_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "bos_token_id": 1,
}

CONFIG = ConfigRules(
    experts="deepseek",
    windows="periodic",
    period=4,
    rotates_windows=True,
    names={"n_routed_experts": "num_experts", "n_shared_experts": "num_shared_experts"},
    defaults={
        "topk_group": 1,
        "num_key_value_heads": 32,
        "rms_norm_eps": 1e-5,
        "num_shared_experts": 1,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
    },
    built_in=SIGMOIDS,
    ignorable=keys(
        "num_nextn_predict_layers mtp_loss_scaling_factor mtp_share_layers is_moe_layer first_last_k_dense_replace"
    ),
)
build = partial(decoder, ffn=partial(moe_block, names=DEEPSEEK), qk_norm=True)
