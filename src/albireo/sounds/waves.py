"""Waves: a sound as it is, for encoders that hear samples.

Called by the front doors. Keys are honoured, or change nothing, or are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from albireo.errors import InvariantError
from albireo.json_file import keys
from albireo.sounds.bounds import MAX_RATE
from albireo.sounds.features import F32, log_mel_fields

#: What extractors are called -> under the root by which sounds are made as loud as others.
WAV2VEC2, OMNI = "Wav2Vec2FeatureExtractor", "OmniASRFeatureExtractor"
_EPS = {WAV2VEC2: 1e-7, OMNI: 1e-5}
_IGNORABLE = keys("feature_extractor_type processor_class padding_side padding_value return_attention_mask")


@dataclass(frozen=True, slots=True)
class Waves:
    """Fields: rate: samples a second. seconds: of the longest sound. fewest: samples that a shorter one is filled up
    to, with silence. eps: sounds are made of mean 0 and deviation 1, this under its root; 0: they are heard as they
    are."""

    rate: int
    seconds: int
    fewest: int
    eps: float = 0.0

    @property
    def num_samples(self) -> int:
        """Of the longest."""
        return self.rate * self.seconds

    def features(self, samples: F32) -> F32:
        """[n, 1] of samples [n], from -1 to 1. Raises: InvariantError for more than the longest has."""
        if samples.ndim != 1 or len(samples) > self.num_samples:
            raise InvariantError(f"{samples.shape} samples; the longest sound has {self.num_samples}")
        if self.eps and len(samples):
            wide = samples.astype(np.float64)
            samples = ((wide - wide.mean()) / np.sqrt(wide.var() + self.eps)).astype(np.float32)
        count = max(len(samples), self.fewest)
        return np.pad(samples, (0, count - len(samples))).astype(np.float32)[:, None]


def open_waves(
    directory: Path, rate: int, seconds: int, fewest: int, extractor: str = WAV2VEC2, *, can_norm: bool = False
) -> Waves:
    """What a directory says of sounds. Args: of the encoder; see Waves. extractor: what it is called. can_norm: sounds
    are normed where the file does not say that they are not; else it must not say that they are.

    Raises: ModelError for missing or damaged files, and another rate; UnsupportedModel for a key that asks for
    something else.
    """
    fields = log_mel_fields(directory)
    fields.one_of("feature_extractor_type", (extractor,), extractor)
    said = fields.integer("sampling_rate", 1, MAX_RATE, rate)
    if said != rate:
        fields.fail("sampling_rate", said, f"must be {rate}, which the encoder hears")
    eps = _EPS[extractor] if can_norm and fields.flag("do_normalize", True) else 0.0
    fields.refuse_unread(_IGNORABLE, {"feature_size": (1,), "do_normalize": (False,)})
    return Waves(rate, seconds, fewest, eps)
