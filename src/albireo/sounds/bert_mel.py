"""BertMel: how loud a sound is in each band of frequencies as W2v-BERT 2.0 hears it, two frames side by side.

Called by the front doors. Frames are those of Kaldi; each band is of mean 0 and deviation 1 over a sound. Keys are
honoured, or change nothing, or are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.json_file import keys
from albireo.sounds.bounds import MAX_BANDS
from albireo.sounds.features import F32, kaldi_bands, kaldi_powers, log_mel_fields

_TYPE = "SeamlessM4TFeatureExtractor"
# what sounds of others are filled up with behind, which nothing sees
_IGNORABLE = keys("feature_extractor_type processor_class padding_side padding_value return_attention_mask auto_map")
#: Of a sound of 16,000 samples a second.
_RATE, _HOP, _WIDTH, _FFT = 16000, 160, 400, 512
_EMPHASIS, _LOWEST_HZ, _FLOOR, _EPS = 0.97, 20.0, 2.0**-23, 1e-7
#: Samples are multiplied by it. Frames of a row.
_LOUD, _BESIDE = 32768.0, 2


@dataclass(frozen=True, slots=True, eq=False)
class BertMel:
    """Fields: seconds: of the longest sound."""

    num_mels: int
    seconds: int
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    rate = _RATE

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bands", kaldi_bands(_RATE, _FFT, self.num_mels, _LOWEST_HZ, _RATE / 2))

    @property
    def num_samples(self) -> int:
        """Of the longest."""
        return self.seconds * _RATE

    def features(self, samples: F32) -> F32:
        """[n, 2 * num_mels] of samples; of a frame without another beside it nothing is heard. Too few for two have
        silence behind. Raises: InvariantError for more than the longest has."""
        if samples.ndim != 1 or len(samples) > self.num_samples:
            raise InvariantError(f"{samples.shape} samples; the longest sound has {self.num_samples}")
        heard = np.pad(samples, (0, max(0, _WIDTH + _HOP - len(samples)))).astype(np.float64) * _LOUD
        powers = kaldi_powers(heard, _HOP, np.hanning(_WIDTH) ** 0.85, _FFT, _EMPHASIS)
        logs = np.log(np.maximum(powers @ self._bands, _FLOOR))
        frames = (logs - logs.mean(axis=0)) / np.sqrt(logs.var(axis=0, ddof=1) + _EPS)
        rows = len(frames) // _BESIDE
        return np.asarray(frames[: rows * _BESIDE].reshape(rows, -1), np.float32)


def open_bert_mel(directory: Path, width: int, seconds: int) -> BertMel:
    """What a directory says of sounds. Args: width: of the rows that the encoder hears. seconds: see BertMel.

    Raises: ModelError for missing or damaged files, and for other rows; UnsupportedModel for a key that asks for
    something else.
    """
    fields = log_mel_fields(directory)
    fields.one_of("feature_extractor_type", (_TYPE,), _TYPE)
    bands = fields.integer("num_mel_bins", 1, MAX_BANDS, 80)
    # what it is called by others; its class asks num_mel_bins
    neutral = {"sampling_rate": (_RATE,), "stride": (_BESIDE,), "feature_size": (bands,)}
    fields.refuse_unread(_IGNORABLE, neutral)
    if bands * _BESIDE != width:
        what = f"two of them must be feature_projection_input_dim={width} of config.json: they are of two models"
        fields.fail("num_mel_bins", bands, what)
    return BertMel(bands, seconds)
