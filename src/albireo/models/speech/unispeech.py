"""UniSpeech with a head of CTC: each 20 ms of a sound say a character, or none.

The encoder is a tower (models/hearing/wav2vec2.py).
"""

from __future__ import annotations

from albireo.models.blocks.ctc_of_samples import build as build
from albireo.models.blocks.ctc_of_samples import rules
from albireo.models.speech import wav2vec2

TINY = wav2vec2.TINY | {
    "architectures": ["UniSpeechForCTC"],
    "model_type": "unispeech",
}

#: Of the encoder.
IGNORABLE_WEIGHTS = ("unispeech.*",)
CONFIG = rules("UniSpeechForCTC")
