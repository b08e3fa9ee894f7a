"""Qwen25Omni: a sound is tiles of a few chunks, each of which is heard by itself; a row for each 40 ms.

Chat templates write <|audio_bos|><|AUDIO|><|audio_eos|>; it is the middle that becomes rows. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from albireo.sounds.features import F32, LogMel, filled
from albireo.sounds.prepared import HasSpectra, PreparedSound, nothing_heard, refuse_longer
from albireo.sounds.settings import OF_PICTURES, STRIDE, SoundSettings

#: Positions of the encoder that become a row; chunks of a tile, see models/hearing/qwen2_5_omni.py.
_MERGE, _CHUNKS = 2, 4


@dataclass(frozen=True, slots=True, eq=False)
class Qwen25Omni(HasSpectra):
    """See SoundProcessor. Fields: tile: frames of a tile."""

    spectra: LogMel
    tile: int

    row_token = placeholder = "<|AUDIO|>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> Qwen25Omni:
        """Raises: ModelError, UnsupportedModel."""
        return cls(
            settings.log_mel(ignorable=OF_PICTURES), _CHUNKS * 2 * settings.tower.integer("n_window", 2, 2**16, 100)
        )

    @property
    def longest_s(self) -> float:
        return self.spectra.seconds

    def prepare(self, samples: F32) -> PreparedSound:
        spectra = self.spectra
        refuse_longer(samples, spectra.rate, spectra.seconds)
        count = -(-len(samples) // spectra.hop)
        # silence behind, as far as a frame that has some of the sound sees
        frames = spectra.spectrum(filled(samples, (count + 2) * spectra.hop + spectra.fft))
        found = [frames[at : min(at + self.tile, count)] for at in range(0, count, self.tile)]
        # an end that is too short to be a row is not heard
        tiles = tuple(np.ascontiguousarray(each) for each in found if self.rows(*each.shape))
        if not tiles:
            raise nothing_heard(samples, STRIDE * spectra.hop + 1)
        return PreparedSound(tiles, self.row_token * sum(self.rows(*tile.shape) for tile in tiles))

    def rows(self, frames: int, bands: int) -> int:
        return -(-frames // STRIDE) // _MERGE

    def largest_tile(self) -> tuple[int, int]:
        return self.tile, self.spectra.num_mels
