"""LogMel: how loud a sound is in each band of frequencies, as time goes by; what Whisper's encoder hears.

Called by the front doors. Source: Radford et al. 2022, Robust Speech Recognition via Large-Scale Weak Supervision, and
Slaney 1998, Auditory Toolbox (bands). Keys are honoured, or change nothing, or are refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError, ModelError
from albireo.json_file import Fields, keys, read_json

F32 = NDArray[np.float32]

PROCESSOR_FILE, SOUND_FILE = "processor_config.json", "preprocessor_config.json"
_CLASS = "WhisperFeatureExtractor"
#: Far above any.
_MAX_BANDS, _MAX_RATE, _MAX_SECONDS, _MAX_FFT = 2**12, 2**20, 2**12, 2**14
#: What is computed from other keys, and how several sounds become one array.
_IGNORABLE = keys(
    "feature_extractor_type processor_class auto_map n_samples nb_max_frames padding_side return_attention_mask"
)
#: Lowest power that has a logarithm; and how far below the loudest, in powers of ten, all is silence.
_FLOOR, _RANGE = 1e-10, 8.0
_HIGHEST_HZ = 8000.0


@dataclass(frozen=True, slots=True, eq=False)
class LogMel:
    """Fields: rate: samples a second. hop: samples from one frame to the next. fft: samples of a frame. seconds: of a
    window, which shorter sounds are filled up to, with silence."""

    rate: int
    num_mels: int
    hop: int
    fft: int
    seconds: int
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bands", _slaney_bands(self.rate, self.fft, self.num_mels))

    @property
    def num_samples(self) -> int:
        """Of a window."""
        return self.seconds * self.rate

    @property
    def num_frames(self) -> int:
        """Of a window."""
        return self.num_samples // self.hop

    def features(self, samples: F32) -> F32:
        """[num_frames, num_mels] of samples [n], n <= num_samples, from -1 to 1.

        Raises: InvariantError for more of them.
        """
        if samples.ndim != 1 or len(samples) > self.num_samples:
            raise InvariantError(f"{samples.shape} samples; a window has {self.num_samples}")
        whole = np.zeros(self.num_samples, np.float64)
        whole[: len(samples)] = samples
        padded = np.pad(whole, self.fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.fft)[:: self.hop][: self.num_frames]
        # periodic: a window of one sample more, without its last
        spectrum = np.fft.rfft(frames * np.hanning(self.fft + 1)[:-1], axis=1)
        powers = (spectrum.real**2 + spectrum.imag**2) @ self._bands
        logs = np.log10(np.maximum(powers, _FLOOR))
        return np.asarray((np.maximum(logs, logs.max() - _RANGE) + 4.0) / 4.0, np.float32)


def open_log_mel(directory: Path) -> LogMel:
    """What a directory says of sounds. Raises: ModelError for missing or damaged files; UnsupportedModel for a key that
    asks for something else."""
    fields = _fields(directory)
    named = fields.text("feature_extractor_type", _CLASS)
    if named != _CLASS:
        fields.unsupported("feature_extractor_type", named, f"supported: {_CLASS}")
    fft = fields.integer("n_fft", 2, _MAX_FFT, 400)
    found = LogMel(
        fields.integer("sampling_rate", 1, _MAX_RATE, 16000),
        fields.integer("feature_size", 1, _MAX_BANDS, 80),
        fields.integer("hop_length", 1, _MAX_FFT, 160),
        fft,
        fields.integer("chunk_length", 1, _MAX_SECONDS, 30),
    )
    fields.refuse_unread(_IGNORABLE, {})
    if found.num_samples % found.hop or fft % 2 or found.num_samples <= fft:
        fields.fail("hop_length", found.hop, f"must cut {found.num_samples} samples evenly, and n_fft={fft} be even")
    return found


def _fields(directory: Path) -> Fields:
    path = directory / PROCESSOR_FILE
    if path.is_file():
        table = Fields(read_json(path), str(path)).table("feature_extractor")
        if table is not None:
            return Fields(table, f"{path}: feature_extractor")
    path = directory / SOUND_FILE
    if not path.is_file():
        raise ModelError(
            f"{directory}: there is no {SOUND_FILE} that says how sounds are prepared; copy it from where the "
            "checkpoint is from"
        )
    return Fields(read_json(path), str(path))


def _slaney_bands(rate: int, fft: int, count: int) -> NDArray[np.float64]:
    """[fft / 2 + 1, count]: triangles whose corners are evenly apart in mels, each of one area."""
    edges = _hertz(np.linspace(0.0, _mels(_HIGHEST_HZ), count + 2))
    bins = np.linspace(0, rate // 2, fft // 2 + 1)
    widths, away = np.diff(edges), edges[None, :] - bins[:, None]
    triangles = np.minimum(-away[:, :-2] / widths[:-1], away[:, 2:] / widths[1:])
    return np.asarray(np.maximum(0.0, triangles) * (2.0 / (edges[2:] - edges[:-2])))


#: Mels go up evenly to 1 kHz, by 3 for 200 Hz; from there on 27 of them are a factor of 6.4.
_LINEAR_HZ, _LINEAR_MELS, _STEP = 1000.0, 15.0, np.log(6.4) / 27.0


def _mels(hertz: float) -> float:
    if hertz < _LINEAR_HZ:
        return 3.0 * hertz / 200.0
    return float(_LINEAR_MELS + np.log(hertz / _LINEAR_HZ) / _STEP)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _LINEAR_HZ * np.exp(_STEP * (mels - _LINEAR_MELS))
    return np.where(mels < _LINEAR_MELS, 200.0 * mels / 3.0, above)
