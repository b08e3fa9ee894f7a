"""GraniteSpeech: a sound is one tile, pairs of frames; three rows for each 300 ms.

Chat templates write <|audio|>, which becomes rows. Called by processor.py. Keys are honoured, or change nothing, or are
refused by name. Bands are evenly apart in mels as HTK has them, and not of one area.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from albireo.json_file import Fields, keys
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE, check_frames
from albireo.sounds.features import F32, filled, htk_bands
from albireo.sounds.prepared import PreparedSound, refuse_longer
from albireo.sounds.settings import SoundSettings

_TYPE = "GraniteSpeechFeatureExtractor"
_IGNORABLE = keys(
    "feature_extractor_type processor_class padding_side padding_value return_attention_mask feature_size"
)
#: Seconds of the longest sound; frames that stand side by side.
_LONGEST_S, _PAIR = 180, 2
_FLOOR, _RANGE = 1e-10, 8.0
_MAX = 2**14


@dataclass(frozen=True, slots=True, eq=False)
class GraniteSpeech:
    """See SoundProcessor. Fields: hop, fft, width: see sounds.nemo. window: rows of the tower that become so many
    queries."""

    rate: int
    num_mels: int
    hop: int
    fft: int
    width: int
    window: int
    queries: int
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    row_token = placeholder = "<|audio|>"
    row_marks = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bands", htk_bands(self.rate, self.fft, self.num_mels, 0.0, self.rate / 2))

    @classmethod
    def read(cls, settings: SoundSettings) -> GraniteSpeech:
        """Raises: ModelError, UnsupportedModel."""
        sounds = settings.sounds
        sounds.one_of("feature_extractor_type", (_TYPE,), _TYPE)
        mel = Fields(sounds.table("melspec_kwargs") or {}, f"{sounds.where}: melspec_kwargs")
        rate = sounds.integer("sampling_rate", 1, MAX_RATE, 16000)
        fft = mel.integer("n_fft", 2, MAX_FFT, 512)
        window = sounds.integer("projector_window_size", 1, _MAX, 15)
        own_rate, bands = mel.integer("sample_rate", 1, MAX_RATE, rate), mel.integer("n_mels", 1, MAX_BANDS, 80)
        hop = mel.integer("hop_length", 1, MAX_FFT, 160)
        check_frames(mel, "hop_length", own_rate, hop, fft, bands)
        found = cls(
            own_rate,
            bands,
            hop,
            fft,
            mel.integer("win_length", 2, fft, 400),
            window,
            window // sounds.integer("projector_downsample_rate", 1, window, 5),
        )
        mel.refuse_unread((), {})
        sounds.refuse_unread(_IGNORABLE, {})
        bands = settings.tower.integer("input_dim", 1, 2**16, 160)
        if bands != _PAIR * found.num_mels:
            sounds.fail("melspec_kwargs.n_mels", found.num_mels, f"must be half of input_dim={bands} of config.json")
        if found.rate != rate:
            sounds.fail("sampling_rate", rate, f"must be sample_rate={found.rate} of melspec_kwargs")
        return found

    @property
    def longest_s(self) -> float:
        return _LONGEST_S

    def prepare(self, samples: F32) -> PreparedSound:
        refuse_longer(samples, self.rate, self.longest_s)
        tile = self._spectrum(filled(samples, max(len(samples), self.fft // 2 + 1)))
        # two frames a row make one row too many of three minutes to the hundredth
        tile = tile[: self.largest_tile()[0]]
        return PreparedSound((tile,), self.row_token * self.rows(*tile.shape))

    def _spectrum(self, samples: F32) -> F32:
        """[n / hop / 2, 2 * num_mels] of samples [n], n > fft / 2."""
        padded = np.pad(samples.astype(np.float64), self.fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.fft)[:: self.hop]
        side = (self.fft - self.width) // 2
        # periodic: a window of one sample more, without its last
        window = np.pad(np.hanning(self.width + 1)[:-1], (side, self.fft - self.width - side))
        found = np.fft.rfft(frames * window, axis=1)
        logs = np.log10(np.maximum((found.real**2 + found.imag**2) @ self._bands, _FLOOR))
        logs = np.maximum(logs, logs.max() - _RANGE) / 4.0 + 1.0
        count = len(logs) // _PAIR
        return np.ascontiguousarray(logs[: count * _PAIR].reshape(count, -1), np.float32)

    @property
    def rows_per_s(self) -> float:
        return self.queries * self.rate / (self.window * _PAIR * self.hop)

    def rows(self, frames: int, bands: int) -> int:
        return -(-frames // self.window) * self.queries

    def largest_tile(self) -> tuple[int, int]:
        return _LONGEST_S * self.rate // self.hop // _PAIR, _PAIR * self.num_mels
