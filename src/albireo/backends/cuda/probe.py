"""How fast a GPU reads its memory and multiplies: the limits that measured speeds are held against.

Called by bench/limits.py and the doctor, between runs. Sums and products are torch's (cuBLAS), so that no kernel of
this backend is its own yardstick. Does not know programs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from albireo.dtypes import itemsize
from albireo.errors import OutOfMemory

#: A pass over so much is long beside a launch, and finds nothing of it in a cache; the least is twice the largest
#: second-level cache.
READ_BYTES, LEAST_READ_BYTES = 1 << 30, 256 << 20
#: Rows and columns of the matrices that are multiplied.
DOT_SIZE, LEAST_DOT_SIZE = 8192, 1024
#: Of what is free; the runs beside the probe have the rest.
_MEMORY_FRACTION = 0.5
#: Launches of a burst: 10 to 30 ms of each kind on a data center's GPU, 0.2 s of float32 products.
NUM_READS, NUM_PRODUCTS = 32, 8

Launch = Callable[[], object]
#: (launch, count) -> seconds of each of so many launches on the device.
Timer = Callable[[Launch, int], list[float]]


@dataclass(frozen=True, slots=True)
class ProbeSizes:
    """read_bytes: of the buffer that is read. dot_size: rows and columns of the matrices."""

    read_bytes: int
    dot_size: int


def sizes_for(free_bytes: int, dtype: str) -> ProbeSizes:
    """As large as is worth it, and fits into half of the memory that is free.

    Raises: OutOfMemory with the numbers where that is too little to say anything.
    """
    room = int(free_bytes * _MEMORY_FRACTION)
    dot_size = DOT_SIZE
    while _matrix_bytes(dot_size, dtype) > min(room // 2, room - LEAST_READ_BYTES) and dot_size > LEAST_DOT_SIZE:
        dot_size //= 2
    read_bytes = READ_BYTES
    while read_bytes > room - _matrix_bytes(dot_size, dtype) and read_bytes > LEAST_READ_BYTES:
        read_bytes //= 2
    needed = read_bytes + _matrix_bytes(dot_size, dtype)
    if needed > room:
        raise OutOfMemory(
            f"the GPU has {free_bytes >> 20} MiB free; its limits are measured in half of that, which must be "
            f"{needed >> 20} MiB at least. End what else uses the GPU, or lower gpu_memory_utilization"
        )
    return ProbeSizes(read_bytes, dot_size)


def event_times(launch: Launch, count: int) -> list[float]:
    """By the device's own clock, launches one behind the other."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    launch()  # the host gets ahead meanwhile, so that the device does not wait for it between two events
    events[0].record()
    for event in events[1:]:
        launch()
        event.record()
    events[-1].synchronize()
    return [begun.elapsed_time(ended) / 1e3 for begun, ended in pairwise(events)]


class SpeedProbe:
    """Measures one compute dtype. Holds its buffers: normal numbers, since products of zeros take less power, and so
    less time, than those of a model.
    """

    def __init__(self, device: torch.device, name: str, dtype: str, sizes: ProbeSizes, timer: Timer) -> None:
        self.name = name
        self._timer = timer
        self._sizes = sizes
        generator = torch.Generator(device).manual_seed(0)
        size = sizes.dot_size

        def normal(*shape: int) -> torch.Tensor:
            return torch.empty(shape, device=device).normal_(generator=generator)

        self._memory = normal(sizes.read_bytes // itemsize("float32"))
        self._sum = torch.empty((), device=device)
        # As of a linear: rows of x by rows of the weight.
        self._x, self._weight = (normal(size, size).to(getattr(torch, dtype)) for _ in range(2))
        self._out = torch.empty_like(self._x)

    @property
    def read_bytes(self) -> int:
        """How much is read at a time."""
        return self._sizes.read_bytes

    def read(self) -> float:
        """Bytes per second of the best of some passes over the memory."""
        return self.read_bytes / min(self._timer(self._add_up, NUM_READS))

    def dot(self) -> float:
        """Flops per second of the best of some products of two matrices; of float32 without any rounding to TF32."""
        return 2 * self._sizes.dot_size**3 / min(self._timer(self._multiply, NUM_PRODUCTS))

    def _add_up(self) -> None:
        torch.sum(self._memory, dim=0, out=self._sum)

    def _multiply(self) -> None:
        torch.mm(self._x, self._weight.T, out=self._out)


def open_probe(dtype: str) -> SpeedProbe:
    """A probe of the first GPU, in what is free of its memory now. Raises: OutOfMemory."""
    device = torch.device("cuda", 0)
    sizes = sizes_for(torch.cuda.mem_get_info(device)[0], dtype)
    return SpeedProbe(device, torch.cuda.get_device_name(device), dtype, sizes, event_times)


def _matrix_bytes(size: int, dtype: str) -> int:
    """Of two matrices and their product."""
    return 3 * size * size * itemsize(dtype)
