"""Ministral 3: Mistral with yarn, and queries that grow beyond the context of pretraining, up to which it is
computed.
"""

from __future__ import annotations

from albireo.models.config import ConfigRules
from albireo.models.decoders import mistral
from albireo.models.settings.block_settings import of_said_rotation
from albireo.models.settings.tiny import TINY_LLAMA

#: Heads narrower than hidden / heads; a context no longer than that of pretraining.
TINY = TINY_LLAMA | {
    "architectures": ["Ministral3ForCausalLM"],
    "model_type": "ministral3",
    "vocab_size": 123,
    "hidden_size": 40,
    "intermediate_size": 68,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1000000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 128,
        "max_position_embeddings": 128,
        "beta_fast": 32.0,
        "beta_slow": 1.0,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "llama_4_scaling_beta": 0.1,
    },
    "sliding_window": None,
    "bos_token_id": 1,
    "pad_token_id": 11,
}


CONFIG = ConfigRules(
    blocks=of_said_rotation,
    keys=frozenset({"llama_4_scaling_beta"}),
    windows="every_layer",
    default_window=None,
    head_dim=128,
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5},
)
build = mistral.build
