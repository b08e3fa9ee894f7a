"""Qwen3Asr: a sound is tiles of as many frames as its encoder's layers see at once; 13 rows for each second.

Chat templates write <|audio_start|><|audio_pad|><|audio_end|>; it is the middle that becomes rows. Called by
processor.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

import numpy as np

from albireo.sounds.features import F32, LogMel, filled
from albireo.sounds.prepared import HasSpectra, PreparedSound
from albireo.sounds.settings import OF_PICTURES, SoundSettings

#: Frames of which convolutions, which go on by two each, leave one.
_EIGHTH = 8
#: A shorter sound has silence behind.
_FEWEST_SAMPLES = 8000


@dataclass(frozen=True, slots=True, eq=False)
class Qwen3Asr(HasSpectra):
    """See SoundProcessor. Fields: chunk: frames that convolutions see at once. tile: of a tile."""

    spectra: LogMel
    chunk: int
    tile: int
    fewest: int

    longest_s = math.inf
    row_token = placeholder = "<|audio_pad|>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> Qwen3Asr:
        """Raises: ModelError, UnsupportedModel."""
        names = "WhisperFeatureExtractor", "Qwen3ASRFeatureExtractor"
        spectra = settings.log_mel(names, ignorable=("min_length", "n_window"))
        fewest = settings.sounds.optional_integer("min_length", 0, 2**24)
        return cls._of(settings, spectra, _FEWEST_SAMPLES if fewest is None else fewest)

    @classmethod
    def _of(cls, settings: SoundSettings, spectra: LogMel, fewest: int) -> Self:
        tower = settings.tower
        chunk = 2 * tower.integer("n_window", 4, 2**16, 50)
        tile = tower.integer("n_window_infer", chunk, 2**16, 800)
        return cls(spectra, chunk, tile, max(spectra.fft + 1, fewest))

    def prepare(self, samples: F32) -> PreparedSound:
        frames = self.spectra.spectrum(filled(samples, max(len(samples), self.fewest)))
        tiles = tuple(np.ascontiguousarray(frames[at : at + self.tile]) for at in range(0, len(frames), self.tile))
        return PreparedSound(tiles, self.row_token * sum(self.rows(*each.shape) for each in tiles))

    def rows(self, frames: int, bands: int) -> int:
        whole, rest = divmod(frames, self.chunk)
        return whole * -(-self.chunk // _EIGHTH) + -(-rest // _EIGHTH)

    def largest_tile(self) -> tuple[int, int]:
        return self.tile, self.spectra.num_mels


class Qwen3Omni(Qwen3Asr):
    """Of Qwen3-Omni, which hears sounds as short as they are."""

    @classmethod
    def read(cls, settings: SoundSettings) -> Qwen3Omni:
        """Raises: ModelError, UnsupportedModel."""
        return cls._of(settings, settings.log_mel(ignorable=OF_PICTURES), 0)
