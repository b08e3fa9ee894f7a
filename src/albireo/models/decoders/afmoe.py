"""Arcee Trinity: norms around attention and experts, a gate on attention's output, which rotates where it has a window;
experts chosen by sigmoids and a bias, beside a shared one.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, normed_moe_block
from albireo.models.blocks.layers import (
    AROUND_ATTENTION,
    AttentionNames,
    Norms,
)
from albireo.models.config import ConfigRules
from albireo.models.settings.tiny import TINY_LLAMA

#: The second layer without a window and without rotation; the first is dense.
TINY = TINY_LLAMA | {
    "architectures": ["AfmoeForCausalLM"],
    "model_type": "afmoe",
    "vocab_size": 123,
    "intermediate_size": 72,
    "num_dense_layers": 1,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": 17,
    "global_attn_every_n_layers": 2,
    "num_experts": 6,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 28,
    "num_shared_experts": 1,
    "route_scale": 2.5,
    "mup_enabled": True,
    "bos_token_id": 1,
}


CONFIG = ConfigRules(
    keys=keys("mup_enabled"),
    experts="deepseek",
    windows="periodic",
    period=4,
    default_window=1024,
    rotates_windows=True,
    head_dim=128,
    names={
        "n_routed_experts": "num_experts",
        "n_shared_experts": "num_shared_experts",
        "first_k_dense_replace": "num_dense_layers",
        "routed_scaling_factor": "route_scale",
        "sliding_window_pattern": "global_attn_every_n_layers",
    },
    defaults={
        "rms_norm_eps": 1e-5,
        "num_experts": 64,
        "num_experts_per_tok": 6,
        "num_shared_experts": 2,
        "num_dense_layers": 1,
        "max_position_embeddings": 16384,
    },
    built_in={
        "score_func": "sigmoid",
        "route_norm": True,
        "num_expert_groups": 1,
        "num_limited_groups": 1,
    },
    ignorable=keys("load_balance_coeff use_grouped_mm auto_map"),
)
_ATTENTION = AttentionNames(gate="gate_proj")
_FFN = Norms("pre_mlp_layernorm", "post_mlp_layernorm")
_EXPERTS = Names(router="router.gate", bias="expert_bias", shared="shared_experts")
build = partial(
    decoder,
    ffn=partial(normed_moe_block, names=_EXPERTS, norms=_FFN),
    norms=AROUND_ATTENTION,
    qk_norm=True,
    names=_ATTENTION,
)
