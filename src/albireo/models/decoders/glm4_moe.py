"""GLM-4.5, 4.5-Air and 4.6: half of each head rotated; experts chosen by sigmoids and a bias, beside a shared one."""

from __future__ import annotations

from functools import partial

from albireo.graph.node import Graph
from albireo.json_file import Fields
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import DEEPSEEK, moe_block
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LLAMA

#: Twelve experts of 36 channels in four groups, of which two are open to a token; the first layer is dense.
TINY = TINY_LLAMA | {
    "architectures": ["Glm4MoeForCausalLM"],
    "model_type": "glm4_moe",
    "vocab_size": 131,
    "hidden_size": 40,
    "intermediate_size": 60,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "partial_rotary_factor": 0.5,
    "rope_theta": 1000000.0,
    "use_qk_norm": False,
    "n_routed_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "n_shared_experts": 2,
    "n_group": 4,
    "topk_group": 2,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "num_nextn_predict_layers": 1,
    "eos_token_id": [2, 3],
    "pad_token_id": 2,
}


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(has_qk_norm=fields.flag("use_qk_norm", False))


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "partial_rotary_factor"}),
    blocks=_blocks,
    experts="deepseek",
    defaults={
        "topk_group": 1,
        "num_key_value_heads": 8,
        "partial_rotary_factor": 0.5,
        "rms_norm_eps": 1e-5,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
    },
    built_in=SIGMOIDS,
    ignorable=frozenset({"num_nextn_predict_layers"}),
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    return decoder(
        config, max_model_len, ffn=partial(moe_block, names=DEEPSEEK), o_bias=False, qk_norm=config.blocks.has_qk_norm
    )
