"""When the device computed: a mark before what a step launches, and one behind it.

A span begins with the first copy of a step and ends with its last launch. Where the host is late, the device waits
between two spans, which is what is counted; a launch that is late within a span is not seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import torch

if TYPE_CHECKING:
    from albireo.backends.cuda.model import CudaModel

R = TypeVar("R")
#: Of a model: all that begins a step, or is part of one.
_CALLS = ("submit", "run", "copy_blocks", "swap_out", "swap_in")


class Timeline:
    """Of one model, whose calls it watches from now on."""

    def __init__(self, model: CudaModel) -> None:
        self._is_cuda = model.device.type == "cuda"
        self._spans: list[tuple[Any, Any]] = []
        for name in _CALLS:
            setattr(model, name, self._watched(getattr(model, name)))

    def restart(self) -> None:
        """Forget what was."""
        self._spans = []

    def share(self) -> float:
        """Part of the time, from the first span to the last, in which the device had launches to do."""
        spans = list(self._spans)  # of steps that were begun; others may begin meanwhile
        if self._is_cuda:
            torch.cuda.synchronize()
        busy = sum(self._between(*span) for span in spans)
        return busy / self._between(spans[0][0], spans[-1][1]) if spans else float("nan")

    def _watched(self, call: Callable[..., R]) -> Callable[..., R]:
        def watched(*args: Any, **options: Any) -> R:
            start = self._mark()
            found = call(*args, **options)
            self._spans.append((start, self._mark()))
            return found

        return watched

    def _mark(self) -> Any:
        if not self._is_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, start: Any, end: Any) -> float:
        return start.elapsed_time(end) / 1e3 if self._is_cuda else end - start
