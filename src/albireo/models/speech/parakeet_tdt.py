"""Parakeet TDT: a Parakeet RNN-T that says with each token how many frames pass, too.

Source: Xu et al. 2023, Efficient Sequence Transduction by Jointly Predicting Tokens and Durations.
"""

from __future__ import annotations

from dataclasses import replace

from albireo.json_file import Fields
from albireo.models.blocks.frame_heads import HALVED
from albireo.models.settings.block_settings import BlockSettings
from albireo.models.speech import parakeet_rnnt

TINY = parakeet_rnnt.TINY | {
    "architectures": ["ParakeetForTDT"],
    "model_type": "parakeet_tdt",
    "durations": [0, 1, 2, 3, 4],
}

_DURATIONS = [0, 1, 2, 3, 4]


def _blocks(fields: Fields) -> BlockSettings:
    given = fields.raw("durations") or _DURATIONS
    # transducers of transformers take the place of a duration for the duration
    if not isinstance(given, list) or given != list(range(len(given))) or not 1 < len(given) <= HALVED:
        fields.unsupported("durations", given, "supported: 0, 1, 2, ... without a hole")
    return BlockSettings(sound_positions=1, marked_frames=HALVED, durations=tuple(given))


CONFIG = replace(parakeet_rnnt.CONFIG, blocks=_blocks, class_names=("ParakeetForTDT",))

build = parakeet_rnnt.build
