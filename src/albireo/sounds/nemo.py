"""NemoMel: how loud a sound is in each band of frequencies as NeMo's encoders hear it: each band by itself of mean 0,
and deviation 1.

Called by the front doors. What differs from one moment to the next is made louder first (preemphasis). The noise that
the authors add where nothing is heard (dither) is left out: it is a hundred-thousandth of the loudest, and drawn anew
by each library. Keys are honoured, or change nothing, or are refused by name. Source: NVIDIA NeMo,
AudioToMelSpectrogramPreprocessor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.json_file import keys
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE
from albireo.sounds.features import F32, check_mels, log_mel_fields, slaney_bands

#: What extractors are called.
COHERE, PARAKEET = "CohereAsrFeatureExtractor", "ParakeetFeatureExtractor"
#: Of sounds that may be heard as they come, whose mean nobody knows before the end.
STREAMING = "NemotronAsrStreamingFeatureExtractor"
#: What changes nothing here: how a long sound is cut elsewhere, and how several become one array.
_IGNORABLE = keys(
    "feature_extractor_type processor_class padding_side padding_value return_attention_mask dither",
    "overlap_chunk_second min_energy_window_samples",
)
_LEAST, _EPS = 2.0**-24, 1e-5


@dataclass(frozen=True, slots=True, eq=False)
class NemoMel:
    """Fields: rate: samples a second. hop: samples from one frame to the next. fft: samples of a frame, of which the
    middle ones are heard: width. emphasis: how much of a sample is taken off the next. seconds: of the longest sound.
    is_normed: bands have mean 0, and deviation 1.
    """

    rate: int
    num_mels: int
    hop: int
    fft: int
    width: int
    emphasis: float
    seconds: float
    is_normed: bool = True
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bands", slaney_bands(self.rate, self.fft, self.num_mels, self.rate / 2))

    @property
    def num_samples(self) -> int:
        """Of the longest."""
        return int(self.seconds * self.rate)

    def features(self, samples: F32) -> F32:
        """[n / hop, num_mels] of samples [n]; of fewer than two frames: as of two, with silence behind.

        Raises: InvariantError for more than the longest has.
        """
        if samples.ndim != 1 or len(samples) > self.num_samples:
            raise InvariantError(f"{samples.shape} samples; the longest sound has {self.num_samples}")
        heard = np.pad(samples, (0, max(0, 2 * self.hop - len(samples)))).astype(np.float64)
        count = len(heard) // self.hop
        heard[1:] -= self.emphasis * heard[:-1]
        padded = np.pad(heard, self.fft // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.fft)[:: self.hop][:count]
        side = (self.fft - self.width) // 2
        window = np.pad(np.hanning(self.width), (side, self.fft - self.width - side))
        found = np.fft.rfft(frames * window, axis=1)
        logs = np.log((found.real**2 + found.imag**2) @ self._bands + _LEAST)
        if not self.is_normed:
            return logs.astype(np.float32)
        centered = logs - logs.mean(axis=0)
        return np.asarray(centered / (centered.std(axis=0, ddof=1) + _EPS), np.float32)


def open_nemo_mel(directory: Path, bands: int, seconds: float, extractor: str = COHERE) -> NemoMel:
    """What a directory says of sounds. Args: bands: that the encoder hears. seconds: of the longest sound it does.
    extractor: what it is called.

    Raises: ModelError for missing or damaged files, and for other bands; UnsupportedModel for a key that asks for
    something else.
    """
    fields = log_mel_fields(directory)
    fields.one_of("feature_extractor_type", (extractor,), extractor)
    fft = fields.integer("n_fft", 2, MAX_FFT, 512)
    found = NemoMel(
        fields.integer("sampling_rate", 1, MAX_RATE, 16000),
        fields.integer("feature_size", 1, MAX_BANDS, 128 if extractor == COHERE else 80),
        fields.integer("hop_length", 1, MAX_FFT, 160),
        fft,
        fields.integer("win_length", 2, fft, 400),
        fields.number("preemphasis", 0.0, 1.0, 0.97),
        fields.number("max_audio_clip_s", 1.0, seconds, seconds),
        extractor != STREAMING,
    )
    fields.refuse_unread(_IGNORABLE, {"mel_filters_dtype": ("float32",)})
    check_mels(fields, found.num_mels, bands, found.rate, found.hop)
    return found
