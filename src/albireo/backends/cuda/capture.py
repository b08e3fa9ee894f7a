"""Recorders: launches recorded once for a bucket, and replayed as one.

CudaGraphs is the real one; DirectLaunches does nothing of the kind, for --enforce-eager and where there is no GPU. Both
are asked by model.py.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

import torch

Launches = Callable[[], None]


class NotRecorded(RuntimeError):
    """Recording failed behind launches that did not: the step is computed. Raised from what recording met."""


class Recorder(Protocol):
    """Turns launches that read and write fixed addresses into something that repeats them."""

    def record(self, launches: Launches) -> Launches:
        """Launches once, which computes the step at hand, and records. Returns: what repeats it.

        Raises: NotRecorded; and what launches raise.
        """
        ...


class DirectLaunches:
    """Repeats launches by launching them."""

    def record(self, launches: Launches) -> Launches:
        launches()
        return launches


class CudaGraphs:
    """One CUDA graph a recording, all in one memory pool."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._side = torch.cuda.Stream()
        self._graphs: list[torch.cuda.CUDAGraph] = []

    def record(self, launches: Launches) -> Launches:
        """As they are they compile and warm what is new, and compute the step; recording them computes nothing.

        They must neither allocate nor wait for the device. Returns: a replay on the current stream, which is the
        current one again also where recording fails (not so after torch.cuda.graph).
        Raises: NotRecorded; and what launches raise.
        """
        side = self._side
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            launches()
        torch.cuda.current_stream().wait_stream(side)
        torch.cuda.synchronize()
        try:
            graph = self._recorded(launches)
        except RuntimeError as error:
            raise NotRecorded(str(error)) from error
        self._graphs.append(graph)

        def replay() -> None:
            graph.replay()

        return replay

    def let_go(self) -> None:
        """Of all that was recorded, while its replays may still be held: none is called again."""
        graphs, self._graphs = self._graphs, []
        for graph in graphs:
            with suppress(RuntimeError):  # of a GPU that is lost
                graph.reset()

    def _recorded(self, launches: Launches) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.stream(self._side):
            # other threads may go on with what is theirs
            graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
            try:
                launches()
            finally:
                graph.capture_end()
        return graph
