"""UsmMel: how loud a sound is in each band of frequencies as Google's Universal Speech Model hears it (Gemma).

Called by the Gemmas beside it. Logarithms are of magnitudes, not of powers. What differs from one sample to the next
may be made louder first (preemphasis), frame by frame. Keys are honoured, or change nothing, or are refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.json_file import Fields, keys
from albireo.sounds.bounds import MAX_BANDS, MAX_FFT, MAX_RATE, check_frames
from albireo.sounds.features import F32, htk_bands

#: How several sounds become one array.
_IGNORABLE = keys("feature_extractor_type processor_class padding_side return_attention_mask auto_map")
_MAX_MS = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class UsmMel:
    """Fields: rate: samples a second. hop: samples from one frame to the next. width: samples of a frame; fft: of a
    transform. hertz: lowest and highest. emphasis: how much of a sample is taken off the next. begins_alike: of a
    frame's first sample as much of itself is; else of the one before the frame's. scale: of samples. floor: of
    magnitudes; is_added: it is added to them, else they are no less. mean, deviation: of each band, by which it is made
    of mean 0 and deviation 1; empty: it is not."""

    rate: int
    num_mels: int
    hop: int
    width: int
    fft: int
    hertz: tuple[float, float]
    emphasis: float
    begins_alike: bool
    scale: float
    floor: float
    is_added: bool
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    _bands: NDArray[np.float64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_bands", htk_bands(self.rate, self.fft, self.num_mels, *self.hertz))

    @classmethod
    def read(cls, sounds: Fields, kind: str, defaults: Mapping[str, Any], ignorable: Iterable[str] = ()) -> UsmMel:
        """What a file says. Args: kind: of extractor. defaults: what absent keys mean; is_added: see above.
        ignorable: further keys, which others read.

        Raises: ModelError for a bad value; UnsupportedModel for a key that asks for something else.
        """
        sounds.one_of("feature_extractor_type", (kind,), kind)
        rate, bands = (
            sounds.integer("sampling_rate", 1, MAX_RATE, 16000),
            sounds.integer("feature_size", 1, MAX_BANDS, 128),
        )

        def number(key: str, low: float, high: float) -> float:
            return sounds.number(key, low, high, defaults[key])

        def count(key: str) -> int:
            found = round(rate * number(key, 0.1, _MAX_MS) / 1000)
            if not 2 <= found <= MAX_FFT:
                sounds.fail(key, sounds.raw(key), f"makes {found} samples; must be 2 to {MAX_FFT}")
            return found

        width = count("frame_length_ms")
        lowest, highest = number("min_frequency", 0.0, rate / 2), number("max_frequency", 1.0, rate / 2)
        if lowest >= highest:
            sounds.fail("min_frequency", lowest, f"must be below max_frequency={highest:g}")
        doubled, hop = sounds.flag("fft_overdrive", defaults["fft_overdrive"]), count("hop_length_ms")
        fft = 2 ** (math.ceil(math.log2(width)) + doubled)
        check_frames(sounds, "hop_length_ms", rate, hop, fft, bands)
        found = cls(
            rate,
            bands,
            hop,
            width,
            fft,
            (lowest, highest),
            number("preemphasis", 0.0, 1.0),
            sounds.flag("preemphasis_htk_flavor", True),
            sounds.number("input_scale_factor", 1e-6, 1e9, 1.0),
            number("mel_floor", 1e-30, 1.0),
            defaults["is_added"],
            *(_of_bands(sounds, key, bands) for key in ("per_bin_mean", "per_bin_stddev")),
        )
        # written beside what they follow from
        for key, value in (("frame_length", found.width), ("hop_length", found.hop), ("fft_length", found.fft)):
            said = sounds.optional_integer(key, 1, 2 * MAX_FFT)
            if said not in (None, value):
                sounds.fail(key, said, f"must be {value}, as other keys have it")
        sounds.refuse_unread(_IGNORABLE | frozenset(ignorable), {})
        return found

    def frames(self, count: int) -> int:
        """Of so many samples: those that are heard whole, and one sample behind."""
        return max(0, (count - self.width - 1) // self.hop + 1)

    def spectrum(self, samples: F32) -> F32:
        """[frames(n), num_mels] of samples [n]."""
        if not self.frames(len(samples)):
            return np.zeros((0, self.num_mels), np.float32)
        heard = samples.astype(np.float64) * self.scale
        found = np.lib.stride_tricks.sliding_window_view(heard, self.width + 1)[:: self.hop]
        if not self.emphasis:
            found = found[:, :-1]
        elif self.begins_alike:
            first = (1.0 - self.emphasis) * found[:, :1]
            found = np.concatenate([first, found[:, 1:-1] - self.emphasis * found[:, :-2]], axis=1)
        else:
            found = found[:, 1:] - self.emphasis * found[:, :-1]
        # periodic: a window of one sample more, without its last
        loud = np.abs(np.fft.rfft(found * np.hanning(self.width + 1)[:-1], self.fft, axis=1)) @ self._bands
        logs = np.log(loud + self.floor if self.is_added else np.maximum(loud, self.floor))
        if self.mean:
            logs -= self.mean
        if self.deviation:
            logs /= self.deviation
        return logs.astype(np.float32)


def _of_bands(sounds: Fields, key: str, bands: int) -> tuple[float, ...]:
    """A number for each band; none: nothing is said. Raises: ModelError for another count."""
    if sounds.raw(key) is None:
        return ()
    inner = sounds.raw(key)
    while isinstance(inner, list) and len(inner) == 1 and isinstance(inner[0], list):
        inner = inner[0]  # as it is written where an array has been made of it
    found = Fields({key: inner}, sounds.where).numbers(key, -1e6, 1e6)
    if len(found) != bands or (key == "per_bin_stddev" and not all(found)):
        sounds.fail(key, f"{len(found)} numbers", f"must be one of each of feature_size={bands}, by which is divided")
    return found
