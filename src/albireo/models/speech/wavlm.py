"""WavLM with a head of CTC: each 20 ms of a sound say a character, or none.

The encoder is a tower (models/hearing/wavlm.py).
"""

from __future__ import annotations

from albireo.json_file import keys
from albireo.models.blocks.ctc_of_samples import build as build
from albireo.models.blocks.ctc_of_samples import rules
from albireo.models.speech import wav2vec2

TINY = wav2vec2.TINY | {
    "architectures": ["WavLMForCTC"],
    "model_type": "wavlm",
}

#: Of the encoder.
IGNORABLE_WEIGHTS = ("wavlm.*",)
CONFIG = rules("WavLMForCTC", beside=keys("num_buckets max_bucket_distance"))
