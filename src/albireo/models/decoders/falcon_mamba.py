"""Falcon Mamba (7B): Mamba 1, of which b, c and how long a token counts are normed, without weights."""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import Fields, keys
from albireo.models.blocks.mamba1_mixer import mamba1_decoder
from albireo.models.decoders import mamba
from albireo.models.settings.mamba1_settings import MAMBA1_KEYS, Mamba1Settings, all_layers, parse_mamba1

#: mamba's, with norms that say their own epsilon.
TINY = mamba.TINY | {
    "architectures": ["FalconMambaForCausalLM"],
    "model_type": "falcon_mamba",
    "tie_word_embeddings": False,
    "mixer_rms_eps": 1e-3,
}


def _mamba(fields: Fields) -> Mamba1Settings | None:
    eps = fields.number("mixer_rms_eps", 0.0, 1.0, default=1e-6)
    return parse_mamba1(fields, MAMBA1_KEYS, all_layers(fields), "plain", eps)


CONFIG = replace(
    mamba.CONFIG,
    mamba=_mamba,
    ignorable=mamba.CONFIG.ignorable | keys("use_falcon_mambapy"),
    class_names=("FalconMambaForCausalLM",),
)


build = mamba1_decoder
