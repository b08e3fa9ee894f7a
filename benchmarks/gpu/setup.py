"""What a part is given: the device, sizes for it, its clock, and how much time is left."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from report import Row

if TYPE_CHECKING:
    from albireo.backends.cuda.chip import Chip

T = TypeVar("T")

#: Bytes a second that the memory of a GPU is sold with, by a part of its name.
_BANDWIDTH = {"H200": 4.8e12, "H100 NVL": 3.9e12, "H100 PCIe": 2.0e12, "H100": 3.35e12, "A100-SXM4-80": 2.04e12}
#: Kernels that are compiled at once.
_COMPILING = 12
#: More than any second-level cache.
_FLUSH_BYTES = 256 << 20


@dataclass
class Setup:
    """is_dry: tiny shapes on the CPU, in Triton's interpreter: whether it runs, not how fast."""

    device: torch.device
    is_dry: bool
    deadline: float
    _flush: torch.Tensor | None = field(default=None, repr=False)

    def pick(self, real: T, tiny: T) -> T:
        return tiny if self.is_dry else real

    @property
    def seconds_left(self) -> float:
        return self.deadline - time.monotonic()

    @property
    def bandwidth(self) -> float:
        """Of the GPU's memory by its name, bytes a second; of an unknown one NaN."""
        name = "" if self.is_dry else torch.cuda.get_device_name(self.device)
        return next((value for part, value in _BANDWIDTH.items() if part in name), float("nan"))

    @property
    def chip(self) -> Chip:
        from albireo.backends.cuda.chip import chip_of

        return chip_of(self.device)

    def warm(self, launches: Iterable[Callable[[], object]]) -> None:
        """Launch each once, several at a time, so that they compile beside each other; what cannot is met again."""
        if self.is_dry:
            return
        # a thread that has no context of the GPU cannot launch
        with ThreadPoolExecutor(_COMPILING, initializer=torch.cuda.set_device, initargs=(0,)) as pool:
            for one in [pool.submit(launch) for launch in launches]:
                one.exception()
        torch.cuda.synchronize()

    def release(self) -> None:
        """Give back what nobody holds any more: the GPU's memory, of which a dry run has none."""
        if not self.is_dry:
            gc.collect()
            torch.cuda.empty_cache()

    def random(self, *shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
        """Of a normal distribution; never zeros, of which a GPU multiplies more in a second than of other numbers."""
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(*shape, generator=generator, device=self.device).to(dtype)

    def seconds(self, launch: Callable[[], object], rounds: int = 15, is_recorded: bool = True) -> float:
        """Median time of a launch on the device, with nothing of it in the cache. is_recorded: as a CUDA graph."""
        if self.is_dry:
            start = time.perf_counter()
            launch()
            return time.perf_counter() - start
        again = recorded(launch) if is_recorded else launch
        again()
        if self._flush is None:
            self._flush = torch.empty(_FLUSH_BYTES, dtype=torch.uint8, device=self.device)
        times = []
        for _ in range(rounds):
            # the host gets ahead meanwhile, so that the device never waits for it
            self._flush.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            again()
            end.record()
            times.append((start, end))
        torch.cuda.synchronize()
        return statistics.median(start.elapsed_time(end) for start, end in times) / 1e3


def recorded(launch: Callable[[], object]) -> Callable[[], None]:
    """The launch as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        launch()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launch()
    return graph.replay


def attempt(name: str, measure: Callable[[], Iterator[Row]]) -> Iterator[Row]:
    """Its rows; where it fails, a row that says why, and the part goes on."""
    try:
        yield from measure()
    except ImportError:
        raise  # the part is left out
    except Exception as error:
        yield Row(name, note=f"{type(error).__name__}: {str(error).strip()[:200]}", is_good=False)
