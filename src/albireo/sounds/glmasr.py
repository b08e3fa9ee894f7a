"""GlmAsr: a sound is tiles of up to 30 s, each as loud as it is by itself; a row for each 80 ms.

Chat templates write <|begin_of_audio|><|pad|><|end_of_audio|>; it is the middle that becomes rows. Called by
processor.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from albireo.sounds.features import F32, LogMel
from albireo.sounds.prepared import HasSpectra, PreparedSound, nothing_heard
from albireo.sounds.settings import STRIDE, SoundSettings

#: Frames of a tile behind what is heard, of which the last is silent; and positions that become a row.
_BEHIND, _MERGE = 3, 4


@dataclass(frozen=True, slots=True, eq=False)
class GlmAsr(HasSpectra):
    """See SoundProcessor."""

    spectra: LogMel

    longest_s = math.inf
    row_token = placeholder = "<|pad|>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> GlmAsr:
        """Raises: ModelError, UnsupportedModel."""
        return cls(settings.window("max_position_embeddings"))

    def prepare(self, samples: F32) -> PreparedSound:
        most = self.spectra.num_samples
        found = [self._tile(samples[at : at + most]) for at in range(0, len(samples), most)]
        # an end that is too short to be a row is not heard
        tiles = tuple(tile for tile in found if self.rows(*tile.shape))
        if not tiles:
            fewest = STRIDE * (_MERGE - 1) * self.spectra.hop + 1
            raise nothing_heard(samples, fewest)
        return PreparedSound(tiles, self.row_token * sum(self.rows(*tile.shape) for tile in tiles))

    def _tile(self, samples: F32) -> F32:
        heard = -(-len(samples) // self.spectra.hop)
        frames = np.pad(self.spectra.features(samples), ((0, _BEHIND), (0, 0)), mode="edge")
        return np.ascontiguousarray(frames[: heard + _BEHIND])

    def rows(self, frames: int, bands: int) -> int:
        return -(-(frames - _BEHIND) // STRIDE) // _MERGE

    def largest_tile(self) -> tuple[int, int]:
        return self.spectra.num_frames + _BEHIND, self.spectra.num_mels
