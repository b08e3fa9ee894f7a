"""Granite with windows in three of four layers (Swash): a sink of each head, and a rotation of each layer's own,
or none.
"""

from __future__ import annotations

from functools import partial

from albireo.json_file import Fields
from albireo.models.blocks.decoder import decoder
from albireo.models.config import ConfigRules
from albireo.models.decoders import granite
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.settings.rope_settings import MAX_THETA, MIN_THETA

#: The first and the fifth layer see all; the first does not rotate, the third by a base of its own.
TINY = granite.TINY | {
    "num_hidden_layers": 5,
    "architectures": ["GraniteSWAForCausalLM"],
    "model_type": "granite_swa",
    "vocab_size": 107,
    "attention_bias": False,
    "layer_rope_theta": [0, 10000.0, 500.0, 10000.0, 20000.0],
    "sliding_window": 9,
    "layer_types": ["full_attention", *["sliding_attention"] * 3, "full_attention"],
}

DEFAULT_WINDOW = 128


def rotations_of_layers(fields: Fields) -> BlockSettings:
    """Raises: ModelError where layer_rope_theta is no list of bases, one for each layer."""
    layers, given = fields.integer("num_hidden_layers", 1, 2**12), fields.raw("layer_rope_theta")
    if given is None:
        return BlockSettings()
    is_list = isinstance(given, list) and len(given) == layers
    if not is_list or not all(type(each) in (int, float) and _is_base(each) for each in given):
        rule = f"must be, for each of {layers} layers, 0 or a number from {MIN_THETA:g} to {MAX_THETA:g}"
        fields.fail("layer_rope_theta", given, rule)
    return BlockSettings(layer_thetas=tuple(float(each) for each in given))


def _is_base(number: float) -> bool:
    return number == 0 or MIN_THETA <= number <= MAX_THETA


CONFIG = ConfigRules(
    keys=frozenset({"attention_bias", "mlp_bias", *granite.MULTIPLIERS}),
    windows="first_of_period",
    period=4,
    default_window=DEFAULT_WINDOW,
    blocks=rotations_of_layers,
    defaults={
        "attention_multiplier": 1.0,
        "num_key_value_heads": 4,
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
    },
)
build = partial(decoder, sinks=True)
