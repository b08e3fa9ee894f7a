"""LasrMel: how loud a sound is in each band of frequencies as LASR's encoder hears it (MedASR).

Called by the front doors. Frames begin with the sound's first sample; bands are triangles in mels, from 125 to 7,500
Hz. Keys are honoured, or change nothing, or are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.json_file import keys
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE
from albireo.sounds.features import F32, check_mels, kaldi_bands, log_mel_fields

_TYPE = "LasrFeatureExtractor"
_IGNORABLE = keys("feature_extractor_type processor_class padding_side padding_value return_attention_mask")
_LOWEST_HZ, _HIGHEST_HZ, _LEAST = 125.0, 7500.0, 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class LasrMel:
    """Fields: rate: samples a second. hop: samples from one frame to the next. fft: of a transform, whose first width
    samples are heard. seconds: of the longest sound. fewest: frames of the shortest: shorter ones have silence behind.
    """

    rate: int
    num_mels: int
    hop: int
    fft: int
    width: int
    seconds: int
    fewest: int
    _filters: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_filters", kaldi_bands(self.rate, self.fft, self.num_mels, _LOWEST_HZ, _HIGHEST_HZ))

    @property
    def num_samples(self) -> int:
        """Of the longest."""
        return self.seconds * self.rate

    def features(self, samples: F32) -> F32:
        """[n, num_mels] of samples. Raises: InvariantError for more than the longest has."""
        if samples.ndim != 1 or len(samples) > self.num_samples:
            raise InvariantError(f"{samples.shape} samples; the longest sound has {self.num_samples}")
        least = self.width + (self.fewest - 1) * self.hop
        heard = np.pad(samples, (0, max(0, least - len(samples)))).astype(np.float64)
        frames = np.lib.stride_tricks.sliding_window_view(heard, self.width)[:: self.hop]
        found = np.fft.rfft(frames * np.hanning(self.width), self.fft, axis=1)
        power = (found.real**2 + found.imag**2) @ self._filters
        return np.asarray(np.log(np.maximum(power, _LEAST)), np.float32)


def open_lasr_mel(directory: Path, bands: int, seconds: int, fewest: int) -> LasrMel:
    """What a directory says of sounds. Args: bands: that the encoder hears. Others: see LasrMel.

    Raises: ModelError for missing or damaged files, and for other bands; UnsupportedModel for a key that asks for
    something else.
    """
    fields = log_mel_fields(directory)
    fields.one_of("feature_extractor_type", (_TYPE,), _TYPE)
    fft = fields.integer("n_fft", 2, MAX_FFT, 512)
    found = LasrMel(
        fields.integer("sampling_rate", 1, MAX_RATE, 16000),
        fields.integer("feature_size", 1, MAX_BANDS, 128),
        fields.integer("hop_length", 1, MAX_FFT, 160),
        fft,
        fields.integer("win_length", 2, fft, 400),
        seconds,
        fewest,
    )
    fields.refuse_unread(_IGNORABLE, {})
    check_mels(fields, found.num_mels, bands, found.rate, found.hop)
    if found.width <= 2 * found.hop:
        # the longest sound would have more frames than the encoder hears
        fields.fail("win_length", found.width, f"must be more than two of hop_length={found.hop}")
    return found
