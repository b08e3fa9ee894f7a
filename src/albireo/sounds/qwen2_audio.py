"""Qwen2Audio: a sound of up to 30 s is one tile, a row for each 40 ms of it.

Chat templates write <|audio_bos|><|AUDIO|><|audio_eos|>; it is the middle that becomes rows. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from albireo.sounds.features import F32, LogMel
from albireo.sounds.prepared import HasSpectra, PreparedSound, nothing_heard, refuse_longer
from albireo.sounds.settings import STRIDE, SoundSettings

#: Positions of the encoder that become a row.
_MERGE = 2


@dataclass(frozen=True, slots=True, eq=False)
class Qwen2Audio(HasSpectra):
    """See SoundProcessor."""

    spectra: LogMel

    row_token = placeholder = "<|AUDIO|>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> Qwen2Audio:
        """Raises: ModelError, UnsupportedModel."""
        return cls(settings.window("max_source_positions"))

    def prepare(self, samples: F32) -> PreparedSound:
        spectra = self.spectra
        refuse_longer(samples, spectra.rate, spectra.seconds)
        num_frames = -(-len(samples) // spectra.hop)
        rows = self.rows(framed(num_frames), spectra.num_mels)
        if not rows:
            raise nothing_heard(samples, STRIDE * spectra.hop + 1)
        return PreparedSound((with_end(spectra.features(samples), framed(num_frames)),), self.row_token * rows)

    @property
    def longest_s(self) -> float:
        return self.spectra.seconds

    def rows(self, frames: int, bands: int) -> int:
        return frames // STRIDE // _MERGE

    def largest_tile(self) -> tuple[int, int]:
        return framed(self.spectra.num_frames), self.spectra.num_mels


def framed(num_frames: int) -> int:
    """Frames of a tile of so many that are heard: what its positions are made of."""
    return STRIDE * -(-num_frames // STRIDE) + 1


def with_end(frames: F32, count: int) -> F32:
    """The first so many of frames [n, bands], where it is one too many zeros, as a convolution has them behind."""
    return np.ascontiguousarray(np.pad(frames, ((0, 1), (0, 0)))[:count])
