"""FunAsrNano: a sound of up to two minutes is one tile; seven frames side by side are a row, each six frames on.

Chat templates write the token that becomes rows, which processor_config.json names. Called by processor.py. Frames are
those of Kaldi.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from albireo.json_file import keys
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE, check_frames
from albireo.sounds.features import F32, kaldi_bands, kaldi_powers
from albireo.sounds.prepared import PreparedSound, nothing_heard, refuse_longer
from albireo.sounds.settings import SoundSettings

_TYPE = "FunAsrNanoFeatureExtractor"
_IGNORABLE = keys("feature_extractor_type processor_class padding_side padding_value return_attention_mask auto_map")
_LONGEST_S, _MOST_ROWS = 119, 2000
_EMPHASIS, _LOWEST_HZ, _FLOOR = 0.97, 20.0, 2.0**-23


@dataclass(frozen=True, slots=True, eq=False)
class FunAsrNano:
    """See SoundProcessor. Fields: hop, width: samples from one frame to the next, and of one; fft: of a transform.
    beside: frames of a row. step: from one row to the next."""

    rate: int
    num_mels: int
    hop: int
    width: int
    fft: int
    beside: int
    step: int
    row_token: str
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    longest_s = float(_LONGEST_S)
    row_marks = ()

    def __post_init__(self) -> None:
        bands = kaldi_bands(self.rate, self.fft, self.num_mels, _LOWEST_HZ, self.rate / 2)
        object.__setattr__(self, "_bands", bands)

    @classmethod
    def read(cls, settings: SoundSettings) -> FunAsrNano:
        """Raises: ModelError, UnsupportedModel."""
        sounds = settings.sounds
        sounds.one_of("feature_extractor_type", (_TYPE,), _TYPE)
        sounds.one_of("window", ("hamming",), "hamming")
        rate = sounds.integer("sampling_rate", 100, MAX_RATE, 16000)
        sizes = ("frame_length", 25), ("frame_shift", 10)
        width, hop = (rate * sounds.integer(key, 1, 1000, usual) // 1000 for key, usual in sizes)
        fft, bands = 1 << (width - 1).bit_length(), sounds.integer("feature_size", 1, MAX_BANDS, 80)
        if fft > MAX_FFT:
            sounds.fail("frame_length", sounds.raw("frame_length"), f"makes {width:,} samples; at most {MAX_FFT:,}")
        check_frames(sounds, "frame_shift", rate, max(hop, 1), fft, bands)
        whole = settings.processor
        found = cls(
            rate,
            bands,
            hop,
            width,
            fft,
            sounds.integer("num_frames_lfr", 1, 64, 7),
            sounds.integer("stride_lfr", 1, 64, 6),
            whole.text("audio_token", "<|object_ref_start|>"),
        )
        sounds.refuse_unread(_IGNORABLE, {})
        for key, said, heard, usual in (
            ("feature_size", found.num_mels, "num_mel_bins", 80),
            ("num_frames_lfr", found.beside, "num_stacked_frames", 7),
        ):
            if said != settings.tower.integer(heard, 1, 2**16, usual):
                sounds.fail(key, said, f"must be {heard} of config.json: they are of two models")
        if rate != 100 * hop or found.step != 6 or width < 2:
            sounds.unsupported("stride_lfr", found.step, "supported: 6 frames, of a hundredth of a second each")
        return found

    @property
    def placeholder(self) -> str:
        return self.row_token

    def prepare(self, samples: F32) -> PreparedSound:
        refuse_longer(samples, self.rate, self.longest_s)
        if len(samples) < self.width:
            raise nothing_heard(samples, self.width)
        tile = self._stacked(self._spectrum(samples))
        return PreparedSound((tile,), self.row_token * len(tile))

    def _spectrum(self, samples: F32) -> F32:
        """[frames, num_mels]: those that are heard whole."""
        powers = kaldi_powers(samples.astype(np.float64), self.hop, np.hamming(self.width), self.fft, _EMPHASIS)
        return np.asarray(np.log(np.maximum(powers @ self._bands, _FLOOR)), np.float32)

    def _stacked(self, frames: F32) -> F32:
        """[rows, beside * num_mels], the ends repeated as often as a row wants."""
        count, before = -(-len(frames) // self.step), (self.beside - 1) // 2
        behind = max(self.beside - 1 - before, (count - 1) * self.step + self.beside - before - len(frames))
        padded = np.pad(frames, ((before, behind), (0, 0)), mode="edge")
        rows = np.lib.stride_tricks.sliding_window_view(padded, self.beside, axis=0)[:: self.step][:count]
        return np.ascontiguousarray(rows.transpose(0, 2, 1).reshape(count, -1))

    @property
    def rows_per_s(self) -> float:
        return self.rate / (self.step * self.hop)

    def rows(self, frames: int, bands: int) -> int:
        return frames

    def largest_tile(self) -> tuple[int, int]:
        return _MOST_ROWS, self.beside * self.num_mels
