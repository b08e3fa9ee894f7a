"""LogMel: how loud a sound is in each band of frequencies, as time goes by; what Whisper's encoder hears.

Called by the front doors. Source: Radford et al. 2022, Robust Speech Recognition via Large-Scale Weak Supervision, and
Slaney 1998, Auditory Toolbox (bands). Keys are honoured, or change nothing, or are refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError, ModelError
from albireo.json_file import Fields, keys, read_json
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE, MAX_WINDOW, MAX_WINDOW_S, check_frames

F32 = NDArray[np.float32]

PROCESSOR_FILE, SOUND_FILE = "processor_config.json", "preprocessor_config.json"
#: Names of the extractor.
WHISPER = ("WhisperFeatureExtractor",)
#: What is computed from other keys, and how several sounds become one array.
_IGNORABLE = keys(
    "feature_extractor_type processor_class auto_map n_samples nb_max_frames padding_side return_attention_mask"
)
#: Samples whose frames are computed at once, for want of memory: a frame is many numbers before it is few.
_AT_ONCE_S = 60
#: Lowest power that has a logarithm; and how far below the loudest, in powers of ten, all is silence.
_FLOOR, _RANGE = 1e-10, 8.0
_HIGHEST_HZ = 8000.0


@dataclass(frozen=True, slots=True, eq=False)
class LogMel:
    """Fields: rate: samples a second. hop: samples from one frame to the next. fft: samples of a frame. seconds: of a
    window, which shorter sounds are filled up to, with silence. loudest: the power of ten that is taken for the loudest
    of any sound; None: each has its own."""

    rate: int
    num_mels: int
    hop: int
    fft: int
    seconds: int
    loudest: float | None = None
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bands", slaney_bands(self.rate, self.fft, self.num_mels))

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
        return self.spectrum(filled(samples, self.num_samples))

    def spectrum(self, samples: F32) -> F32:
        """[n / hop, num_mels] of samples [n], n > fft, of any length: what is not as loud as the loudest by far is
        silence, so that a sound is not the spectra of its parts."""
        padded = np.pad(samples.astype(np.float64), self.fft // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, self.fft)[:: self.hop][: len(samples) // self.hop]
        # periodic: a window of one sample more, without its last
        window, step = np.hanning(self.fft + 1)[:-1], _AT_ONCE_S * self.rate // self.hop
        logs = np.empty((len(frames), self.num_mels))
        for first in range(0, len(frames), step):
            found = np.fft.rfft(frames[first : first + step] * window, axis=1)
            powers = (found.real**2 + found.imag**2) @ self._bands
            logs[first : first + step] = np.log10(np.maximum(powers, _FLOOR))
        loudest = logs.max() if self.loudest is None else self.loudest
        return np.asarray((np.maximum(logs, loudest - _RANGE) + 4.0) / 4.0, np.float32)


def filled(samples: F32, count: int) -> F32:
    """samples [n], n <= count, and silence behind."""
    return np.pad(samples, (0, count - len(samples)))


def open_log_mel(directory: Path, names: Sequence[str] = WHISPER, ignorable: frozenset[str] = frozenset()) -> LogMel:
    """What a directory says of sounds. Args: names: of extractors that are this one. ignorable: further keys, which
    others read.

    Raises: ModelError for missing or damaged files; UnsupportedModel for a key that asks for something else.
    """
    fields = log_mel_fields(directory)
    fields.one_of("feature_extractor_type", names, names[0])
    fft, hop = fields.integer("n_fft", 2, MAX_FFT, 400), fields.integer("hop_length", 1, MAX_FFT, 160)
    rate, bands = fields.integer("sampling_rate", 1, MAX_RATE, 16000), fields.integer("feature_size", 1, MAX_BANDS, 80)
    check_frames(fields, "hop_length", rate, hop, fft, bands)
    seconds = fields.integer("chunk_length", 1, MAX_WINDOW_S, 30)
    if seconds * rate > MAX_WINDOW:
        fields.fail("chunk_length", seconds, f"of sampling_rate={rate} is more than {MAX_WINDOW:,} samples")
    found = LogMel(rate, bands, hop, fft, seconds)
    fields.refuse_unread(_IGNORABLE | ignorable, {})
    if found.num_samples % found.hop or fft % 2 or found.num_samples <= fft:
        fields.fail("hop_length", found.hop, f"must cut {found.num_samples} samples evenly, and n_fft={fft} be even")
    return found


def log_mel_fields(directory: Path) -> Fields:
    """The keys of the file that says how sounds are prepared. Raises: ModelError where there is none."""
    fields = _said_of_sounds(directory)
    if fields is None:
        raise ModelError(
            f"{directory}: there is no {SOUND_FILE} that says how sounds are prepared; copy it from where the "
            "checkpoint is from"
        )
    return fields


def check_mels(fields: Fields, num_mels: int, bands: int, rate: int, hop: int) -> None:
    """Raises: ModelError unless these are the bands that an encoder hears, a hundred times a second."""
    if num_mels != bands:
        fields.fail("feature_size", num_mels, f"must be num_mel_bins={bands} of config.json: they are of two models")
    if rate != 100 * hop:
        fields.fail("hop_length", hop, f"must be a hundredth of sampling_rate={rate}")


def says_of_sounds(directory: Path) -> bool:
    """Whether there is such a file. Raises: ModelError for a damaged one."""
    return _said_of_sounds(directory) is not None


def _said_of_sounds(directory: Path) -> Fields | None:
    path = directory / PROCESSOR_FILE
    if path.is_file():
        whole = Fields(read_json(path), str(path))
        for key in ("feature_extractor", "audio_processor"):
            table = whole.table(key)
            if table is not None:
                return Fields(table, f"{path}: {key}")
    path = directory / SOUND_FILE
    return Fields(read_json(path), str(path)) if path.is_file() else None


def slaney_bands(rate: int, fft: int, count: int, highest_hz: float = _HIGHEST_HZ) -> NDArray[np.float64]:
    """[fft / 2 + 1, count]: triangles whose corners are evenly apart in mels, each of one area."""
    edges = _hertz(np.linspace(0.0, _mels(highest_hz), count + 2))
    bins = np.linspace(0, rate // 2, fft // 2 + 1)
    widths, away = np.diff(edges), edges[None, :] - bins[:, None]
    triangles = np.minimum(-away[:, :-2] / widths[:-1], away[:, 2:] / widths[1:])
    return np.asarray(np.maximum(0.0, triangles) * (2.0 / (edges[2:] - edges[:-2])))


def htk_bands(rate: int, fft: int, count: int, lowest_hz: float, highest_hz: float) -> NDArray[np.float64]:
    """[fft / 2 + 1, count]: triangles whose corners are evenly apart in mels as HTK has them, each as high as the
    others."""
    lowest, highest = (2595.0 * np.log10(1.0 + hertz / 700.0) for hertz in (lowest_hz, highest_hz))
    edges = 700.0 * (10.0 ** (np.linspace(lowest, highest, count + 2) / 2595.0) - 1.0)
    bins = np.linspace(0, rate // 2, fft // 2 + 1)
    widths, away = np.diff(edges), edges[None, :] - bins[:, None]
    return np.asarray(np.maximum(0.0, np.minimum(-away[:, :-2] / widths[:-1], away[:, 2:] / widths[1:])))


def kaldi_bands(rate: int, fft: int, count: int, lowest_hz: float, highest_hz: float) -> NDArray[np.float64]:
    """[fft / 2 + 1, count] of what each frequency says of each band: triangles in mels as Kaldi has them, whose corners
    are evenly apart; the lowest frequency says nothing."""

    def mels(hertz: NDArray[np.float64] | float) -> NDArray[np.float64]:
        return np.asarray(1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0))

    places = mels(np.linspace(0.0, rate / 2, fft // 2 + 1)[1:])[:, None]
    edges = np.linspace(mels(lowest_hz), mels(highest_hz), count + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    slopes = np.minimum((places - low) / (middle - low), (high - places) / (high - middle))
    return np.pad(np.maximum(0.0, slopes), ((1, 0), (0, 0)))


def kaldi_powers(
    samples: NDArray[np.float64], hop: int, window: NDArray[np.float64], fft: int, emphasis: float
) -> NDArray[np.float64]:
    """[frames, fft / 2 + 1] of frames as Kaldi has them: those that are heard whole, each of mean 0, and what differs
    from one sample to the next is louder (emphasis)."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, len(window))[::hop]
    frames = frames - frames.mean(axis=1, keepdims=True)
    before = np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    found = np.fft.rfft((frames - emphasis * before) * window, fft, axis=1)
    return np.asarray(found.real**2 + found.imag**2)


#: Mels go up evenly to 1 kHz, by 3 for 200 Hz; from there on 27 of them are a factor of 6.4.
_LINEAR_HZ, _LINEAR_MELS, _STEP = 1000.0, 15.0, np.log(6.4) / 27.0


def _mels(hertz: float) -> float:
    if hertz < _LINEAR_HZ:
        return 3.0 * hertz / 200.0
    return float(_LINEAR_MELS + np.log(hertz / _LINEAR_HZ) / _STEP)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = _LINEAR_HZ * np.exp(_STEP * (mels - _LINEAR_MELS))
    return np.where(mels < _LINEAR_MELS, 200.0 * mels / 3.0, above)
