"""MusicFlamingo: tiles of Audio Flamingo 3, each with the number beside its bands that it has in its sound.

Chat templates write <sound>, around whose rows there is more. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from albireo.sounds.audioflamingo3 import MAX_SECONDS, AudioFlamingo3
from albireo.sounds.features import F32
from albireo.sounds.prepared import PreparedSound
from albireo.sounds.settings import SoundSettings

BEGIN, END = "<|sound_bos|>", "<|sound_eos|>"


@dataclass(frozen=True, slots=True, eq=False)
class MusicFlamingo:
    """See SoundProcessor. Fields: cut: what makes tiles."""

    cut: AudioFlamingo3

    row_token = placeholder = "<sound>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> MusicFlamingo:
        """Raises: ModelError, UnsupportedModel."""
        longest = settings.processor.number("max_audio_len", 1, MAX_SECONDS, 1200)
        return cls(AudioFlamingo3(settings.window("max_source_positions"), longest))

    @property
    def rate(self) -> int:
        return self.cut.rate

    @property
    def longest_s(self) -> float:
        return self.cut.longest_s

    def prepare(self, samples: F32) -> PreparedSound:
        found = self.cut.prepare(samples)
        numbered = (
            np.pad(tile, ((0, 0), (0, 1)), constant_values=float(number)) for number, tile in enumerate(found.tiles)
        )
        return PreparedSound(tuple(map(np.ascontiguousarray, numbered)), f"{BEGIN}{found.text}{END}")

    @property
    def rows_per_s(self) -> float:
        return self.cut.rows_per_s

    def rows(self, frames: int, bands: int) -> int:
        return self.cut.rows(frames, bands)

    def largest_tile(self) -> tuple[int, int]:
        frames, bands = self.cut.largest_tile()
        return frames, bands + 1
