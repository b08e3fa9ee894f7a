"""Sarvam 30B: GLM-4.5's blocks, whose queries, keys and values lie in one tensor, under other names."""

from __future__ import annotations

from functools import partial

from albireo.graph.node import Graph
from albireo.json_file import Fields, keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.blocks.layers import AttentionNames, Ends
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.expert_settings import SIGMOIDS
from albireo.models.settings.tiny import TINY_LLAMA

#: The first layer is dense.
TINY = TINY_LLAMA | {
    "architectures": ["SarvamMoEForCausalLM"],
    "model_type": "sarvam_moe",
    "vocab_size": 131,
    "hidden_size": 40,
    "intermediate_size": 60,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "use_qkv_bias": False,
    "use_qk_norm": True,
    "rope_theta": 8000000.0,
    "num_experts": 12,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "num_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "norm_topk_prob": True,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "pad_token_id": 0,
    "eos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: UnsupportedModel for a shared expert of another width than as many others."""
    given = fields.optional_integer("moe_shared_expert_intermediate_size", 1, 2**20)
    width = fields.integer("moe_intermediate_size", 1, 2**20)
    width *= fields.integer("n_shared_experts", 0, 2**20 // width, default=1)
    if given not in (None, width):
        fields.unsupported("moe_shared_expert_intermediate_size", given, f"supported: {width}")
    return BlockSettings(has_qk_norm=fields.flag("use_qk_norm", True))


CONFIG = ConfigRules(
    keys=keys("attention_bias partial_rotary_factor"),
    blocks=_blocks,
    experts="deepseek",
    head_dim=64,
    older_names={
        "num_experts": "n_routed_experts",
        "num_shared_experts": "n_shared_experts",
        "use_qkv_bias": "attention_bias",
    },
    deciding=frozenset({"num_experts", "num_shared_experts", "use_qkv_bias"}),
    defaults={
        "topk_group": 1,
        "rope_theta": 8e6,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
        "max_position_embeddings": 131072,
    },
    built_in={
        **SIGMOIDS,
        "score_function": "sigmoid",
        "moe_router_enable_expert_bias": True,
        "use_rmsnorm": True,
    },
    # of training, and of layers that guess further tokens, which are left where they lie
    ignorable=keys(
        "embedding_dropout output_dropout max_window_layers router_dtype num_nextn_predict_layers num_mtp_layers",
        "mtp_loss_scaling_factor",
    ),
    class_names=("SarvamMoEForCausalLM", "Glm4MoeForCausalLM"),
)
_ATTENTION = AttentionNames("dense", "query_layernorm", "key_layernorm", block="attention")
_EXPERTS = Names(bias="gate.expert_bias", shared="shared_experts")
_ENDS = Ends("model.word_embeddings.weight")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    return decoder(
        config,
        max_model_len,
        ffn=partial(moe_block, names=_EXPERTS),
        ends=_ENDS,
        o_bias=False,
        qk_norm=config.blocks.has_qk_norm,
        joined="query_key_value",
        names=_ATTENTION,
    )
