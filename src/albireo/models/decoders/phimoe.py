"""Phi-3.5-MoE: Llama's attention with biases behind a LayerNorm; a weight of an expert is of those near it alone."""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields, keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import moe_block
from albireo.models.config import ConfigRules
from albireo.models.decoders.mixtral import NAMES
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.tiny import TINY_LLAMA

#: Six experts, which are near one another more often than in a published model.
TINY = TINY_LLAMA | {
    "architectures": ["PhimoeForCausalLM"],
    "model_type": "phimoe",
    "vocab_size": 127,
    "intermediate_size": 40,
    "original_max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "attention_bias": True,
    "lm_head_bias": True,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "type": "longrope",
        "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5],
        "long_factor": [1.0, 1.3, 1.9, 2.6, 3.3, 4.0],
        "short_mscale": 1.25,
        "long_mscale": 1.4,
        "original_max_position_embeddings": 128,
    },
    "sliding_window": 24,
    "num_local_experts": 6,
    "num_experts_per_tok": 2,
    "router_jitter_noise": 0.2,
    "input_jitter_noise": 0.01,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0,
    "bos_token_id": 1,
}


def _blocks(fields: Fields) -> BlockSettings:
    return BlockSettings(is_layer_norm=True, has_head_bias=fields.flag("lm_head_bias", False))


CONFIG = ConfigRules(
    keys=keys("attention_bias long_mscale"),
    windows="every_layer",
    default_window=None,
    experts="phimoe",
    blocks=_blocks,
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 131072},
    ignorable=keys("input_jitter_noise"),
    class_names=("PhimoeForCausalLM", "PhiMoEForCausalLM"),
)
build = partial(decoder, ffn=partial(moe_block, names=NAMES))
