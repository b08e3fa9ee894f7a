"""Granite 3 with experts (1B-A400M, 3B-A800M): Granite's multipliers; experts in every layer, weights renormalized."""

from __future__ import annotations

from functools import partial

from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names, moe_block
from albireo.models.config import ConfigRules
from albireo.models.decoders.granite import MULTIPLIERS
from albireo.models.settings.tiny import TINY_LLAMA

#: Six experts of 40 channels, three a token.
TINY = TINY_LLAMA | {
    "architectures": ["GraniteMoeForCausalLM"],
    "model_type": "granitemoe",
    "vocab_size": 127,
    "intermediate_size": 40,
    "rms_norm_eps": 1e-6,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "rope_theta": 10000.0,
    "embedding_multiplier": 5.0,
    "residual_multiplier": 0.22,
    "attention_multiplier": 0.4,
    "logits_scaling": 3.0,
    "num_local_experts": 6,
    "num_experts_per_tok": 3,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0,
    "bos_token_id": 0,
    "pad_token_id": 2,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", *MULTIPLIERS}),
    experts="mixtral",
    defaults={"attention_multiplier": 1.0},
)
_NAMES = Names("block_sparse_moe", "gate_proj", "up_proj", "down_proj", router="router.layer")
build = partial(decoder, ffn=partial(moe_block, names=_NAMES))
