"""The machine's limits, measured in this process between the runs that are held against them.

Called by latency.py, throughput.py and the doctor. On a shared machine speeds swing by a factor of two within seconds:
a limit is worth something only beside a run.
"""

from __future__ import annotations

from albireo.backends.cpu.machine import thread_pool
from albireo.backends.cpu.probe import SpeedProbe
from albireo.bench.roofline import Limits

#: A step's bytes are read in a row, but no more than this: beyond any cache the rate does not change.
MAX_READ_BYTES = 512 << 20
MIN_READ_BYTES = 1 << 20
#: One burst reads at least this much, so that waking the threads does not count.
_BURST_BYTES = 128 << 20
_MIN_REPEATS = 3


class LimitProbe:
    """Measures the limits for one compute dtype and one amount of bytes, with as many threads as the engine has."""

    def __init__(self, num_threads: int | None, dtype: str, read_bytes: int) -> None:
        self._pool = thread_pool(num_threads)
        self._dtype = dtype
        self._probe = SpeedProbe(self._pool, min(max(read_bytes, MIN_READ_BYTES), MAX_READ_BYTES))

    @property
    def num_threads(self) -> int:
        """Threads that measure, and compute."""
        return self._pool.size

    @property
    def read_bytes(self) -> int:
        """Bytes read at a time."""
        return self._probe.read_bytes

    def measure(self) -> Limits:
        """The best of a short burst: a limit is what is possible, a disturbed reading is not. Cost: about 20 ms."""
        repeats = max(_MIN_REPEATS, _BURST_BYTES // self._probe.read_bytes)
        return Limits(
            read_bytes_per_s=max(self._probe.read() for _ in range(repeats)),
            dot_flops_per_s=max(self._probe.dot(self._dtype) for _ in range(_MIN_REPEATS)),
        )


def between(before: Limits, after: Limits) -> Limits:
    """What held for a run: the mean of the limits measured on both sides of it."""
    return Limits(
        (before.read_bytes_per_s + after.read_bytes_per_s) / 2, (before.dot_flops_per_s + after.dot_flops_per_s) / 2
    )
