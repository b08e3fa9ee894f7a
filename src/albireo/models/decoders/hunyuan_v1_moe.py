"""Hunyuan A13B: the dense one with experts beside a shared one in every layer, weights renormalized."""

from __future__ import annotations

from functools import partial

from albireo.json_file import keys
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.config import ConfigRules
from albireo.models.decoders.hunyuan_v1_dense import ATTENTION, BUILT_IN, IGNORABLE
from albireo.models.settings.tiny import TINY_LLAMA

#: Five experts of 40 channels, two a token.
TINY = TINY_LLAMA | {
    "architectures": ["HunYuanMoEV1ForCausalLM"],
    "model_type": "hunyuan_v1_moe",
    "vocab_size": 127,
    "intermediate_size": 40,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "num_experts": 5,
    "moe_topk": 2,
    "bos_token_id": 1,
    "pad_token_id": 0,
}

CONFIG = ConfigRules(
    keys=keys("attention_bias alpha"),
    older_names={"attention_head_dim": "head_dim"},
    experts="hunyuan",
    defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    built_in={**BUILT_IN, "use_mixed_mlp_moe": True, "norm_topk_prob": True},
    ignorable=IGNORABLE | keys("capacity_factor moe_drop_tokens moe_random_routing_dropped_token"),
    class_names=("HunYuanMoEV1ForCausalLM",),
)
_NAMES = Names(router="gate.wg", shared="shared_mlp")
build = partial(decoder, ffn=partial(moe_block, names=_NAMES), qk_norm=True, is_norm_behind=True, names=ATTENTION)
