"""Voxtral: a sound is tiles of 30 s, the last with silence behind; a row for each 80 ms.

Templates write [BEGIN_AUDIO][AUDIO]; it is the second that becomes rows. Called by processor.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from albireo.json_file import Fields
from albireo.sounds.features import F32, LogMel, filled
from albireo.sounds.prepared import HasSpectra, PreparedSound
from albireo.sounds.qwen2_audio import framed, with_end
from albireo.sounds.settings import STRIDE, SoundSettings


@dataclass(frozen=True, slots=True, eq=False)
class Voxtral(HasSpectra):
    """See SoundProcessor. Fields: merge: positions of the encoder that become a row."""

    spectra: LogMel
    merge: int

    longest_s = math.inf
    row_token = placeholder = "[AUDIO]"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> Voxtral:
        """Raises: ModelError, UnsupportedModel."""
        tower: Fields = settings.tower
        width = tower.integer("hidden_size", 1, 2**20, 1280)
        return cls(
            settings.window("max_source_positions"), max(1, tower.integer("intermediate_size", 1, 2**24, 5120) // width)
        )

    def prepare(self, samples: F32) -> PreparedSound:
        spectra = self.spectra
        count = -(-len(samples) // spectra.num_samples)
        frames = spectra.spectrum(filled(samples, count * spectra.num_samples))
        cut = frames.reshape(count, spectra.num_frames, spectra.num_mels)
        tiles = tuple(with_end(each, framed(spectra.num_frames)) for each in cut)
        return PreparedSound(tiles, self.row_token * (count * self.rows(*tiles[0].shape)))

    def rows(self, frames: int, bands: int) -> int:
        return frames // STRIDE // self.merge

    def largest_tile(self) -> tuple[int, int]:
        return framed(self.spectra.num_frames), self.spectra.num_mels
