"""Windows: a long sound in parts that can be heard at once, cut where it is quiet.

Called by the front doors.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]

#: A cut is made within the last so many seconds that a window may have, where so many are quietest.
_SEARCH_S, _QUIET_S = 5.0, 0.1


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Fields: start_s: where in the sound it begins. samples: [n], of the whole sound's own."""

    start_s: float
    samples: F32


def windows(samples: F32, rate: int, seconds: float) -> list[Window]:
    """All of a sound [n], n > 0, in order, nothing twice, in windows of at most so many seconds."""
    found, start, longest = [], 0, int(seconds * rate)
    while len(samples) - start > longest:
        end = start + _quietest(samples[start : start + longest], rate)
        found.append(Window(start / rate, samples[start:end]))
        start = end
    return [*found, Window(start / rate, samples[start:])]


def _quietest(samples: F32, rate: int) -> int:
    """Where to end what may have so many samples: in the middle of the quietest stretch near the end, the last of
    several."""
    length, search = max(1, int(_QUIET_S * rate)), min(len(samples) - 1, int(_SEARCH_S * rate))
    if search <= length:
        return len(samples)
    tail = samples[len(samples) - search :].astype(np.float64)
    sums = np.concatenate([[0.0], np.cumsum(tail**2)])
    energy = sums[length:] - sums[:-length]
    # a sum of what is silent may differ from 0 by what was rounded before it
    at = len(energy) - 1 - int(np.argmin(np.maximum(energy, sums[-1] * 1e-12)[::-1]))
    return len(samples) - search + at + length // 2
