"""Granite 3 with experts and a shared one beside them in every layer."""

from __future__ import annotations

from functools import partial

from albireo.graph.node import Graph
from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules, ModelConfig
from albireo.models.decoders import granitemoe
from albireo.models.decoders.granite import MULTIPLIERS
from albireo.models.decoders.granitemoehybrid import ffn_block

TINY = granitemoe.TINY | {
    "architectures": ["GraniteMoeSharedForCausalLM"],
    "model_type": "granitemoeshared",
    "shared_intermediate_size": 52,
}

CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", *MULTIPLIERS}),
    experts="granite_shared",
    defaults={"attention_multiplier": 1.0},
)


def build(config: ModelConfig, max_model_len: int) -> Graph:
    assert config.experts is not None
    ffn = partial(ffn_block, width=config.experts.shared_width)
    return decoder(config, max_model_len, ffn=ffn)
