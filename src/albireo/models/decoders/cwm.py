"""Code World Model 32B: Llama 3 with a window in most layers."""

from __future__ import annotations

from albireo.json_file import Fields
from albireo.models.config import ConfigRules
from albireo.models.decoders import mistral
from albireo.models.settings.block_settings import BlockSettings

TINY = mistral.TINY | {
    "architectures": ["CwmForCausalLM"],
    "model_type": "cwm",
    "vocab_size": 127,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 16.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    "sliding_window": 19,
    "eos_token_id": [2, 3],
}


def _blocks(fields: Fields) -> BlockSettings:
    """Raises: ModelError where a file does not say what its class would have to say for it."""
    if not fields.texts("layer_types"):
        fields.fail("layer_types", None, "must say which layers have a window")
    if not (fields.table("rope_scaling") or fields.table("rope_parameters")):
        fields.fail("rope_scaling", None, "must say how the rotation is scaled, or rope_parameters")
    return BlockSettings()


CONFIG = ConfigRules(
    windows="said",
    default_window=8192,
    head_dim=128,
    blocks=_blocks,
    defaults={"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_theta": 1e6, "max_position_embeddings": 131072},
)
build = mistral.build
