"""Gemma4: a sound of up to 30 s is one tile; a row for each 40 ms. Also of 12B, which hears samples as they are
(gemma4_unified): of any length, since each row is heard by itself.

Chat templates write <|audio|>, around whose rows there is more. Called by processor.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from albireo.json_file import keys
from albireo.sounds.bounds import MAX_RATE
from albireo.sounds.features import F32, filled
from albireo.sounds.prepared import PreparedSound, nothing_heard, refuse_longer
from albireo.sounds.settings import SoundSettings
from albireo.sounds.usm import UsmMel

BEGIN, END = "<|audio>", "<audio|>"
_TYPE, _UNIFIED = "Gemma4AudioFeatureExtractor", "Gemma4UnifiedAudioFeatureExtractor"
#: Of the encoder: frames that become a row.
_MERGE, _LONGEST_S = 4, 30
#: See models/hearing/gemma4.py.
_MOST_FRAMES, _MOST_ROWS = 3000, 750
_DEFAULTS = {
    "frame_length_ms": 20.0,
    "hop_length_ms": 10.0,
    "min_frequency": 0.0,
    "max_frequency": 8000.0,
    "preemphasis": 0.0,
    "fft_overdrive": False,
    "mel_floor": 1e-3,
    "is_added": True,
}


@dataclass(frozen=True, slots=True, eq=False)
class Gemma4:
    """See SoundProcessor."""

    spectra: UsmMel

    longest_s = float(_LONGEST_S)
    row_token = placeholder = "<|audio|>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> Gemma4:
        """Raises: ModelError, UnsupportedModel."""
        found = UsmMel.read(settings.sounds, _TYPE, _DEFAULTS)
        key, bands = "subsampling_conv_channels", 128.0
        if (said := settings.tower.raw(key)) is not None:
            channels = settings.tower.numbers(key, 1, 2**16)
            if len(channels) != 2:
                settings.tower.fail(key, said, "must be two numbers")
            bands = channels[0]
        if bands != found.num_mels:
            settings.sounds.fail(
                "feature_size",
                found.num_mels,
                f"must be the first of {key} of config.json, {bands:g}: they are of two models",
            )
        if found.rate != 100 * found.hop:
            settings.sounds.fail("hop_length_ms", 1000 * found.hop / found.rate, "must be 10")
        return cls(found)

    @property
    def rate(self) -> int:
        return self.spectra.rate

    def prepare(self, samples: F32) -> PreparedSound:
        refuse_longer(samples, self.rate, self.longest_s)
        # silence in front of which as much is heard as of what is behind the middle of a frame
        tile = self.spectra.spectrum(np.pad(samples, (self.spectra.width // 2, 0)))
        if not len(tile):
            least = self.spectra.width - self.spectra.width // 2 + 1
            raise nothing_heard(samples, least)
        return _standing(self.row_token, self.rows(*tile.shape), tile)

    @property
    def rows_per_s(self) -> float:
        return self.rate / (_MERGE * self.spectra.hop)

    def rows(self, frames: int, bands: int) -> int:
        return -(-frames // _MERGE)

    def largest_tile(self) -> tuple[int, int]:
        return _MOST_FRAMES, self.spectra.num_mels


@dataclass(frozen=True, slots=True, eq=False)
class Gemma4Unified:
    """See SoundProcessor. Fields: width: samples of a row."""

    rate: int
    width: int

    longest_s = math.inf
    row_token = placeholder = "<|audio|>"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> Gemma4Unified:
        """Raises: ModelError, UnsupportedModel."""
        sounds = settings.sounds
        if sounds.text("feature_extractor_type", _UNIFIED) != _UNIFIED:
            kind = sounds.raw("feature_extractor_type")
            sounds.unsupported("feature_extractor_type", kind, f"supported: {_UNIFIED}")
        wanted = settings.tower.integer("audio_embed_dim", 1, 2**16, 640)
        for key in ("feature_size", "audio_samples_per_token"):
            said = sounds.integer(key, 1, 2**16, 640)
            if said != wanted:
                sounds.fail(key, said, f"must be audio_embed_dim={wanted} of config.json: they are of two models")
        found = cls(sounds.integer("sampling_rate", 1, MAX_RATE, 16000), wanted)
        sounds.refuse_unread(
            keys("feature_extractor_type processor_class padding_side padding_value return_attention_mask"), {}
        )
        return found

    def prepare(self, samples: F32) -> PreparedSound:
        rows = -(-len(samples) // self.width)
        heard = filled(samples, rows * self.width).reshape(rows, self.width)
        tiles = (np.ascontiguousarray(heard[at : at + _MOST_ROWS], np.float32) for at in range(0, rows, _MOST_ROWS))
        return _standing(self.row_token, rows, *tiles)

    @property
    def rows_per_s(self) -> float:
        return self.rate / self.width

    def rows(self, frames: int, bands: int) -> int:
        return frames

    def largest_tile(self) -> tuple[int, int]:
        return _MOST_ROWS, self.width


def _standing(token: str, rows: int, *tiles: F32) -> PreparedSound:
    return PreparedSound(tiles, f"{BEGIN}{token * rows}{END}")
