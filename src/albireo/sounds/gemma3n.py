"""Gemma3n: a sound of up to 30 s is one tile; as many rows as 30 s have, whatever is heard, and one for its end.

Chat templates write <audio_soft_token>, around whose rows there is more. Called by processor.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from albireo.json_file import Fields, read_json
from albireo.sounds.features import F32, filled
from albireo.sounds.prepared import PreparedSound, nothing_heard, refuse_longer
from albireo.sounds.settings import OF_PICTURES, SoundSettings
from albireo.sounds.usm import UsmMel

_TYPE, BEGIN, END = "Gemma3nAudioFeatureExtractor", "<start_of_audio>", "<end_of_audio>"
_LONGEST_S, _MOST_ROWS = 30, 2**16
#: Samples that a sound is filled up to a multiple of.
_MULTIPLE = 128
_DEFAULTS = {
    "frame_length_ms": 32.0,
    "hop_length_ms": 10.0,
    "min_frequency": 125.0,
    "max_frequency": 7600.0,
    "preemphasis": 0.97,
    "fft_overdrive": True,
    "mel_floor": 1e-5,
    "is_added": False,
}


@dataclass(frozen=True, slots=True, eq=False)
class Gemma3n:
    """See SoundProcessor. Fields: count: rows of a sound, before the one of its end."""

    spectra: UsmMel
    count: int

    longest_s = float(_LONGEST_S)
    row_token = placeholder = "<audio_soft_token>"
    row_marks = (END,)

    @classmethod
    def read(cls, settings: SoundSettings) -> Gemma3n:
        """Raises: ModelError, UnsupportedModel."""
        found = UsmMel.read(settings.sounds, _TYPE, _DEFAULTS, OF_PICTURES)
        bands = settings.tower.integer("input_feat_size", 1, 2**16, 128)
        if bands != found.num_mels:
            settings.sounds.fail(
                "feature_size",
                found.num_mels,
                f"must be input_feat_size={bands} of config.json: they are of two models",
            )
        if found.rate != 100 * found.hop:
            settings.sounds.fail("hop_length_ms", 1000 * found.hop / found.rate, "must be 10")
        whole = settings.processor
        config = settings.directory / "config.json"
        count = Fields(read_json(config), str(config)).integer("audio_soft_tokens_per_image", 1, _MOST_ROWS, 188)
        said = whole.integer("audio_seq_length", 1, _MOST_ROWS, 188)
        if said != count:
            whole.fail("audio_seq_length", said, f"must be audio_soft_tokens_per_image={count} of config.json")
        return cls(found, count)

    @property
    def rate(self) -> int:
        return self.spectra.rate

    def prepare(self, samples: F32) -> PreparedSound:
        refuse_longer(samples, self.rate, self.longest_s)
        tile = self.spectra.spectrum(filled(samples, -(-len(samples) // _MULTIPLE) * _MULTIPLE))
        if not len(tile):
            least = self.spectra.width // _MULTIPLE * _MULTIPLE + 1
            raise nothing_heard(samples, least)
        return PreparedSound((tile,), f"\n\n{BEGIN}{self.row_token * self.count}{END}\n\n")

    @property
    def rows_per_s(self) -> float:
        return (self.count + 1) / _LONGEST_S

    def rows(self, frames: int, bands: int) -> int:
        return self.count + 1

    def largest_tile(self) -> tuple[int, int]:
        return _LONGEST_S * self.rate // self.spectra.hop, self.spectra.num_mels
