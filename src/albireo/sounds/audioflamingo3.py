"""AudioFlamingo3: a sound is tiles of up to 30 s, each as loud as it is by itself; a row for each 40 ms.

Chat templates write <sound>, which becomes rows. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.sounds.features import F32, LogMel
from albireo.sounds.prepared import HasSpectra, PreparedSound, nothing_heard, refuse_longer
from albireo.sounds.qwen2_audio import framed, with_end
from albireo.sounds.settings import STRIDE, SoundSettings

#: Positions of the encoder that become a row.
_MERGE = 2
#: Far above any sound.
MAX_SECONDS = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class AudioFlamingo3(HasSpectra):
    """See SoundProcessor."""

    spectra: LogMel
    longest_s: float

    row_token = placeholder = "<sound>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> AudioFlamingo3:
        """Raises: ModelError, UnsupportedModel."""
        longest = settings.processor.number("max_audio_len", 1, MAX_SECONDS, 600)
        return cls(settings.window("max_source_positions"), longest)

    def prepare(self, samples: F32) -> PreparedSound:
        spectra, most = self.spectra, self.spectra.num_samples
        refuse_longer(samples, spectra.rate, self.longest_s)
        found = [self._tile(samples[at : at + most]) for at in range(0, len(samples), most)]
        # an end that is too short to be a row is not heard
        tiles = tuple(tile for tile in found if self.rows(*tile.shape))
        if not tiles:
            raise nothing_heard(samples, STRIDE * spectra.hop + 1)
        return PreparedSound(tiles, self.row_token * sum(self.rows(*tile.shape) for tile in tiles))

    def _tile(self, samples: F32) -> F32:
        return with_end(self.spectra.features(samples), framed(-(-len(samples) // self.spectra.hop)))

    def rows(self, frames: int, bands: int) -> int:
        return frames // STRIDE // _MERGE

    def largest_tile(self) -> tuple[int, int]:
        return framed(self.spectra.num_frames), self.spectra.num_mels
