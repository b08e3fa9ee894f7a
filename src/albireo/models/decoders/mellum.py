"""Mellum 2: Qwen 3 with experts, and a window in some layers, which rotate by frequencies of their own."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: The second of three layers is dense.
TINY = TINY_LLAMA | {
    "architectures": ["MellumForCausalLM"],
    "model_type": "mellum",
    "vocab_size": 143,
    "hidden_size": 32,
    "intermediate_size": 52,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "rope_parameters": {
        "full_attention": {
            "rope_type": "yarn",
            "rope_theta": 500000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
    "sliding_window": 17,
    "mlp_layer_types": ["sparse", "dense", "sparse"],
    "num_experts": 9,
    "num_experts_per_tok": 3,
    "moe_intermediate_size": 36,
    "norm_topk_prob": True,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.001,
    "bos_token_id": 0,
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError where a file does not say what its class would have to say for it."""
    if not fields.table("rope_parameters"):
        fields.fail("rope_parameters", None, "must say how full_attention and sliding_attention rotate")
    return BlockSettings()


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    windows="said",
    default_window=1024,
    experts="mellum",
    head_dim=128,
    has_local_rope=True,
    blocks=_blocks,
    defaults={
        "num_key_value_heads": 4,
        "norm_topk_prob": True,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 896,
        "max_position_embeddings": 131072,
    },
    # of layers that guess further tokens, which are left where they lie
    ignorable=keys("num_nextn_predict_layers num_mtp_layers mtp_layer_types mtp_mlp_layer_types max_window_layers"),
)
build = partial(decoder, ffn=moe_block, qk_norm=True)
