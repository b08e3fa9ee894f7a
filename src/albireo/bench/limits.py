"""The limits of the device that computes, measured in this process between the runs that are held against them.

Called by latency.py for both benchmarks, and by plan.py. On a shared machine speeds swing by a factor of two within
seconds: a limit is worth something only beside a run.
"""

from __future__ import annotations

from typing import Protocol

from albireo.backends.cpu.machine import thread_pool
from albireo.backends.cpu.probe import SpeedProbe
from albireo.bench.roofline import Limits

#: A step's bytes are read in a row, but no more than this: beyond any cache the rate does not change.
MAX_READ_BYTES = 512 << 20
MIN_READ_BYTES = 1 << 20
#: One burst reads at least this much, so that waking the threads does not count.
_BURST_BYTES = 128 << 20
_MIN_REPEATS = 3


class Probe(Protocol):
    """What measures limits."""

    @property
    def gpu(self) -> str | None:
        """Name of the GPU whose limits they are; None: the processor's."""
        ...

    @property
    def num_threads(self) -> int | None:
        """Threads that measure, and compute; None on a GPU."""
        ...

    @property
    def read_bytes(self) -> int:
        """Bytes read at a time."""
        ...

    def measure(self) -> Limits:
        """The best of a short burst: a limit is what is possible, a disturbed reading is not."""
        ...


def open_probe(device: str, num_threads: int | None, dtype: str, read_bytes: int, num_ranks: int = 1) -> Probe:
    """The probe of the device that a model runs on, cpu or cuda; what a GPU reads at a time is its own choice.

    Args: num_ranks: of the model: each has a GPU, or they share the processor.

    Raises: OutOfMemory where a GPU has no room for it beside the model.
    """
    return GpuLimitProbe(dtype, num_ranks) if device == "cuda" else LimitProbe(num_threads, dtype, read_bytes)


class GpuLimitProbe:
    """Measures the first GPU's limits for one compute dtype: of its memory, also where a cache would hold the model.

    Args: num_gpus: as many are taken to be like it, and may do as much each.
    """

    num_threads = None

    def __init__(self, dtype: str, num_gpus: int = 1) -> None:
        from albireo.backends.cuda import probe

        self._probe, self._num_gpus = probe.open_probe(dtype), num_gpus

    @property
    def gpu(self) -> str:
        """Its name, and how many."""
        return self._probe.name if self._num_gpus == 1 else f"{self._num_gpus} x {self._probe.name}"

    @property
    def read_bytes(self) -> int:
        """Bytes read at a time."""
        return self._probe.read_bytes

    def measure(self) -> Limits:
        """See Probe. Cost: some 30 ms, with float32 0.2 s."""
        read, dot = self._probe.read(), self._probe.dot()
        return Limits(read_bytes_per_s=self._num_gpus * read, dot_flops_per_s=self._num_gpus * dot)


class LimitProbe:
    """Measures the processor's limits for one compute dtype and one amount of bytes, with the engine's threads."""

    def __init__(self, num_threads: int | None, dtype: str, read_bytes: int) -> None:
        self.gpu = None
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
        """See Probe. Cost: about 20 ms."""
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
