"""Phi4Multimodal: a sound of up to 40 s is one tile; a row for each 80 ms.

Chat templates write the token that becomes rows, which tokenizer_config.json names. Called by processor.py. Bands are
evenly apart in mels as Kaldi has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.json_file import Fields, keys, read_json
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE
from albireo.sounds.features import F32, kaldi_bands
from albireo.sounds.prepared import PreparedSound, nothing_heard, refuse_longer
from albireo.sounds.settings import OF_PICTURES, SoundSettings

_TYPE, _TOKENIZER = "Phi4MultimodalFeatureExtractor", "tokenizer_config.json"
_IGNORABLE = keys("feature_extractor_type processor_class padding_side return_attention_mask auto_map")
_MERGE, _LONGEST_S, _MOST_FRAMES = 8, 40, 4000
#: Samples are multiplied by it; powers are at least 1.
_LOUD = 32768.0


@dataclass(frozen=True, slots=True, eq=False)
class Phi4Multimodal:
    """See SoundProcessor. Fields: hop, width: samples from one frame to the next, and of one; fft: of a transform.
    emphasis: how much of a sample is taken off the next. hertz: lowest and highest."""

    rate: int
    num_mels: int
    hop: int
    width: int
    fft: int
    emphasis: float
    hertz: tuple[float, float]
    row_token: str
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    longest_s = float(_LONGEST_S)
    row_marks = ()
    without_pictures = "beside pictures it hears by other linears, which are not computed here"

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bands", kaldi_bands(self.rate, self.fft, self.num_mels, *self.hertz))

    @classmethod
    def read(cls, settings: SoundSettings) -> Phi4Multimodal:
        """Raises: ModelError, UnsupportedModel."""
        sounds = settings.sounds
        sounds.one_of("feature_extractor_type", (_TYPE,), _TYPE)
        rate, fft = sounds.integer("sampling_rate", 1, MAX_RATE, 16000), sounds.integer("n_fft", 2, MAX_FFT, 512)
        lowest = sounds.number("mel_min_frequency", 0.0, rate / 2, 0.0)
        highest = sounds.number("mel_max_frequency", 1.0, rate / 2, 7690.0)
        if lowest >= highest:
            sounds.fail("mel_min_frequency", lowest, f"must be below mel_max_frequency={highest:g}")
        found = cls(
            rate,
            sounds.integer("feature_size", 1, MAX_BANDS, 80),
            sounds.integer("hop_length", 1, MAX_FFT, 160),
            sounds.integer("win_length", 2, fft, 400),
            fft,
            sounds.number("preemphasis", 0.0, 1.0, 0.97),
            (lowest, highest),
            _token(settings.directory),
        )
        neutral = {"audio_compression_rate": (_MERGE,), "audio_downsample_rate": (1,), "audio_feat_stride": (1,)}
        sounds.refuse_unread(_IGNORABLE | OF_PICTURES, neutral)
        if found.num_mels != settings.tower.integer("input_size", 1, 2**16, 80):
            sounds.fail("feature_size", found.num_mels, "must be input_size of config.json: they are of two models")
        if rate != 100 * found.hop or found.width < found.hop:
            sounds.fail(
                "hop_length", found.hop, f"must be a hundredth of sampling_rate={rate}, and not above win_length"
            )
        return found

    @property
    def placeholder(self) -> str:
        return self.row_token

    def prepare(self, samples: F32) -> PreparedSound:
        refuse_longer(samples, self.rate, self.longest_s)
        if len(samples) < self.width:
            raise nothing_heard(samples, self.width)
        tile = self._spectrum(samples)
        return PreparedSound((tile,), self.row_token * self.rows(*tile.shape))

    def _spectrum(self, samples: F32) -> F32:
        """[frames, num_mels]: those that are heard whole."""
        frames = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), self.width)[:: self.hop]
        before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
        heard = (frames - self.emphasis * before) * _LOUD * np.hamming(self.width)
        found = np.fft.rfft(heard, self.fft, axis=1)
        powers = (found.real**2 + found.imag**2) @ self._bands
        return np.asarray(np.log(np.maximum(powers, 1.0)), np.float32)

    @property
    def rows_per_s(self) -> float:
        return self.rate / (_MERGE * self.hop)

    def rows(self, frames: int, bands: int) -> int:
        return -(-frames // _MERGE)

    def largest_tile(self) -> tuple[int, int]:
        return _MOST_FRAMES, self.num_mels


def _token(directory: Path) -> str:
    """What the tokenizer calls the token of sounds."""
    path = directory / _TOKENIZER
    data = read_json(path) if path.is_file() else {}
    said = data.get("audio_token")
    if said is None:
        said = (Fields(data, str(path)).table("extra_special_tokens") or {}).get("audio_token")
    if isinstance(said, dict):
        said = said.get("content")
    return said if isinstance(said, str) else "<|audio|>"
