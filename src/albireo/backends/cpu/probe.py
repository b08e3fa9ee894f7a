"""How fast this processor reads memory and multiplies: the limits that measured speeds are held against.

Called by bench and the doctor, between runs and with the threads of a program. Does not know programs.
"""

from __future__ import annotations

from albireo import _native
from albireo.backends.cpu.nodes import Near

#: A few milliseconds of dot products: long beside the wake-up of a thread, short beside a run.
DOT_ITERATIONS = 1_000_000


class SpeedProbe:
    """Measures with the given threads.

    Args: read_bytes: how much is read at a time; as much as a step reads, so that caches help it as they help the step.
    """

    def __init__(self, pool: _native.ThreadPool, read_bytes: int) -> None:
        self._pool = pool
        # Each thread reads whole pages.
        self._memory = _native.Memory(-(-read_bytes // (4096 * pool.size)) * 4096 * pool.size)
        Near(pool).take(self._memory, [(0, self._memory.num_bytes)])
        # Pages that were never written are all the same page, which is in the cache.
        self._memory.view()[:] = 1

    @property
    def read_bytes(self) -> int:
        """How much one read() reads."""
        return self._memory.num_bytes

    def read(self) -> float:
        """Bytes per second of one pass over the memory."""
        return _native.probe_read(self._pool, self._memory)

    def dot(self, dtype: str) -> float:
        """Flops per second of the best dot product for this compute dtype, or for int8; 0.0 where none is known.

        The processor's, whatever ALBIREO_ISA_MAX says. Types without an instruction of their own are multiplied as
        float32.
        """
        own = _native.probe_dot(self._pool, dtype, DOT_ITERATIONS) if dtype in ("bfloat16", "int8") else 0.0
        if dtype == "int8":
            return own
        return own or _native.probe_dot(self._pool, "float32", DOT_ITERATIONS)
