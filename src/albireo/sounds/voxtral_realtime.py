"""VoxtralRealtime: a sound is one tile, with silence before and behind; a row for each 80 ms.

A row goes with a token, of the prompt or of what is written: so a prompt is a token, and those that stand for the
silence before the sound, and for the time that the text is behind it. Called by processor.py. What tekken.json says of
both is read. Source: Mistral AI 2026, Voxtral Realtime, as mistral-common prepares it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from albireo.errors import UnsupportedModel
from albireo.json_file import Fields, keys, read_json
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE
from albireo.sounds.features import F32, LogMel, filled
from albireo.sounds.prepared import HasSpectra, PreparedSound, refuse_longer
from albireo.sounds.settings import SoundSettings

_TYPE, _TEKKEN = "VoxtralRealtimeFeatureExtractor", "tekken.json"
_IGNORABLE = keys("feature_extractor_type processor_class padding_side return_attention_mask auto_map")
#: Frames of a row, and positions of the encoder; rows of the longest sound, see models/hearing/voxtral_realtime.py.
_FRAMES, _POSITIONS, _MOST_ROWS, _LONGEST_S = 8, 4, 2500, 180
#: Rows before a sound; behind it, as many as the text is behind, one, and what the longest word takes.
_BEFORE, _WORD = 32, 10


@dataclass(frozen=True, slots=True, eq=False)
class VoxtralRealtime(HasSpectra):
    """See SoundProcessor. Fields: before: rows of silence before a sound. delay: rows that the text is behind it."""

    spectra: LogMel
    before: int
    delay: int

    longest_s = float(_LONGEST_S)
    row_token, placeholder = "[STREAMING_PAD]", "[AUDIO]"
    row_marks = ()

    @classmethod
    def read(cls, settings: SoundSettings) -> VoxtralRealtime:
        """Raises: ModelError, UnsupportedModel."""
        sounds = settings.sounds
        sounds.one_of("feature_extractor_type", (_TYPE,), _TYPE)
        fft, hop = sounds.integer("n_fft", 2, MAX_FFT, 400), sounds.integer("hop_length", 1, MAX_FFT, 160)
        rate, bands = (
            sounds.integer("sampling_rate", 1, MAX_RATE, 16000),
            sounds.integer("feature_size", 1, MAX_BANDS, 128),
        )
        loudest = sounds.number("global_log_mel_max", -100.0, 100.0, 1.5)
        if sounds.integer("win_length", 2, MAX_FFT, fft) != fft or fft % 2:
            sounds.unsupported("win_length", sounds.raw("win_length"), f"supported: n_fft={fft}, an even number")
        sounds.refuse_unread(_IGNORABLE, {})
        if bands != settings.tower.integer("num_mel_bins", 1, 2**16, 128):
            sounds.fail("feature_size", bands, "must be num_mel_bins of config.json: they are of two models")
        if rate != 100 * hop:
            sounds.fail("hop_length", hop, f"must be a hundredth of sampling_rate={rate}")
        spectra = LogMel(rate, bands, hop, fft, _LONGEST_S, loudest)
        path = settings.directory / "config.json"
        config = Fields(read_json(path), str(path))
        if config.integer("downsample_factor", 1, 64, _POSITIONS) != _POSITIONS:
            config.unsupported("downsample_factor", config.raw("downsample_factor"), f"supported: {_POSITIONS}")
        delay = config.integer("default_num_delay_tokens", 1, 1024, 6)
        found = cls(spectra, _rows_before(settings.directory, delay, 1000 * _FRAMES * hop / rate), delay)
        room = _MOST_ROWS - math.ceil(_LONGEST_S * found.rows_per_s)
        if found.around > room:
            raise UnsupportedModel(
                f"{settings.directory}: streaming_n_left_pad_tokens={found.before} of {_TEKKEN} and "
                f"default_num_delay_tokens={delay} of config.json are {found.around} rows around a sound; beside "
                f"{_LONGEST_S} s of it {room} are supported"
            )
        return found

    @property
    def around(self) -> int:
        """Rows of silence before and behind a sound."""
        return self.before + self.delay + 1 + _WORD

    def prepare(self, samples: F32) -> PreparedSound:
        refuse_longer(samples, self.rate, self.longest_s)
        step = _FRAMES * self.spectra.hop
        heard = math.ceil(len(samples) / step)
        silence = np.pad(samples, (self.before * step, 0))
        tile = self.spectra.spectrum(filled(silence, (heard + self.around) * step))
        return PreparedSound((tile,), self.row_token * (self.before + self.delay), is_beside=True)

    @property
    def rows_per_s(self) -> float:
        return self.rate / (_FRAMES * self.spectra.hop)

    def rows(self, frames: int, bands: int) -> int:
        return frames // _FRAMES

    def largest_tile(self) -> tuple[int, int]:
        return _FRAMES * _MOST_ROWS, self.spectra.num_mels


def _rows_before(directory: Path, delay: int, row_ms: float) -> int:
    """What tekken.json says, where there is one. Raises: ModelError where it says another delay than config.json."""
    path = directory / _TEKKEN
    table = Fields(read_json(path), str(path)).table("audio") if path.is_file() else None
    said = Fields(table or {}, f"{path}: audio")
    ms = said.number("transcription_delay_ms", 1.0, 1e5, delay * row_ms)
    if ms != delay * row_ms:
        said.fail("transcription_delay_ms", ms, f"must be default_num_delay_tokens={delay} times {row_ms:g}")
    return said.integer("streaming_n_left_pad_tokens", 0, 1024, _BEFORE)
