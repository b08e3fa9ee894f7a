"""gpt-oss (20B, 120B): a mixture in every layer whose linears have biases, windows in every other layer, and one score
of each head, a sink, in the softmax of its rows.

Does not know the format of its chats.
"""

from __future__ import annotations

from functools import partial

from albireo.graph.op_numbers import SWIGLU_ALPHA, SWIGLU_LIMIT
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.config import ConfigRules
from albireo.models.settings.block_settings import of_said_rotation
from albireo.models.settings.tiny import TINY_LLAMA

#: Seven experts of 36 channels, three a token; windows of 5.
TINY = TINY_LLAMA | {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": 131,
    "hidden_size": 32,
    "intermediate_size": 36,
    "num_hidden_layers": 3,
    "head_dim": 16,
    "initial_context_length": 32,
    "rms_norm_eps": 1e-5,
    "swiglu_limit": SWIGLU_LIMIT,
    "attention_bias": True,
    "rope_theta": 150000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "truncate": False,
    },
    "sliding_window": 5,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    "num_local_experts": 7,
    "num_experts_per_tok": 3,
    "experts_per_token": 3,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.9,
    "pad_token_id": 1,
}


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias"}),
    blocks=of_said_rotation,
    windows="periodic",
    default_window=128,
    period=2,
    head_dim=64,
    experts="mixtral",
    activation="clamped_swiglu",
    built_in={"swiglu_limit": SWIGLU_LIMIT, "swiglu_alpha": SWIGLU_ALPHA},
    # the first is how long sequences of a part of the training were, the other says num_experts_per_tok again
    ignorable=frozenset({"initial_context_length", "experts_per_token"}),
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 150000.0, "attention_bias": True},
)
_NAMES = Names(router="router")
build = partial(decoder, ffn=partial(moe_block, names=_NAMES, bias=True), sinks=True)
