"""Granite with experts and windows (Swash): the attention of granite_swa, and a shared expert, if any."""

from __future__ import annotations

from functools import partial

from albireo.graph.node import Graph
from albireo.models.blocks.decoder import decoder
from albireo.models.blocks.experts import Names
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.decoders import granitemoeshared
from albireo.models.decoders.granite import MULTIPLIERS
from albireo.models.decoders.granite_swa import DEFAULT_WINDOW, rotations_of_layers
from albireo.models.decoders.granitemoehybrid import ffn_block

#: The second layer has a window, and rotates; the first sees all.
TINY = granitemoeshared.TINY | {
    "tie_word_embeddings": False,
    "architectures": ["GraniteMoeSWAForCausalLM"],
    "model_type": "granitemoe_swa",
    "vocab_size": 113,
    "attention_bias": True,
    "layer_rope_theta": [0, 10000.0],
    "sliding_window": 9,
    "layer_types": ["full_attention", "sliding_attention"],
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", *MULTIPLIERS}),
    experts="granite_shared",
    windows="first_of_period",
    period=4,
    default_window=DEFAULT_WINDOW,
    blocks=rotations_of_layers,
    defaults={
        "attention_multiplier": 1.0,
        "max_position_embeddings": 2048,
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    },
)
_NAMES = Names("block_sparse_moe", "gate_proj", "up_proj", "down_proj", router="router")


def build(config: ModelConfig, max_model_len: int) -> Graph:
    assert config.experts is not None
    ffn = partial(ffn_block, width=config.experts.shared_width, names=_NAMES)
    return decoder(config, max_model_len, ffn=ffn, sinks=True)
