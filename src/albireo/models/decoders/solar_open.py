"""Solar Open 100B: llama's attention; in every layer experts chosen by sigmoids and a bias, beside a shared one."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LLAMA

#: Eight experts of 36 channels in four groups, of which two are open to a token.
TINY = TINY_LLAMA | {
    "architectures": ["SolarOpenForCausalLM"],
    "model_type": "solar_open",
    "vocab_size": 131,
    "hidden_size": 40,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "rope_theta": 1000000.0,
    "n_routed_experts": 8,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "n_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 1.5,
    "bos_token_id": 1,
    "pad_token_id": 2,
}

CONFIG = ConfigRules(
    keys=keys("attention_bias"),
    experts="deepseek",
    head_dim=128,
    defaults={
        "topk_group": 1,
        "num_key_value_heads": 8,
        # of layers without experts, of which there are none
        "intermediate_size": 1,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1000000.0,
        "n_shared_experts": 1,
        "max_position_embeddings": 131072,
    },
    built_in=SIGMOIDS,
    ignorable=keys("auto_map"),
)
build = partial(decoder, ffn=partial(moe_block, names=DEEPSEEK), o_bias=False)
