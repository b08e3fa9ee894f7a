"""Granite 3 with experts and a shared one beside them in every layer."""

from __future__ import annotations

from functools import partial

from albireo.graph.node import Graph
from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.decoders.granite import MULTIPLIERS
from albireo.models.decoders.granitemoehybrid import ffn_block
from albireo.models.settings.tiny import TINY_LLAMA

TINY = TINY_LLAMA | {
    "architectures": ["GraniteMoeSharedForCausalLM"],
    "model_type": "granitemoeshared",
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
    "shared_intermediate_size": 52,
    "output_router_logits": False,
    "router_aux_loss_coef": 0.0,
    "bos_token_id": 0,
    "pad_token_id": 2,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", *MULTIPLIERS}),
    experts="granite_shared",
    defaults={"attention_multiplier": 1.0},
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    """The graph of a model that serves sequences of up to max_model_len tokens."""
    assert config.experts is not None
    ffn = partial(ffn_block, width=config.experts.shared_width)
    return decoder(config, max_model_len, ffn=ffn)
