"""CudaGraphs on streams and graphs that note what happens to them: there is no GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from albireo.backends.cuda.capture import CudaGraphs, NotRecorded
from albireo.backends.cuda.shortage import frees_cache
from albireo.errors import OutOfMemory


class Gpu:
    """Fields: current: the stream that launches go to. log: what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.current, self.log, self.is_capturing, self.fails = "main", [], False, False
        gpu = self

        class Stream:
            def wait_stream(self, other: Any) -> None:
                gpu.log.append(f"side waits for {other}")

        class Main(str):
            def wait_stream(self, other: Any) -> None:
                gpu.log.append("main waits for side")

        class Graph:
            def capture_begin(self, pool: object, capture_error_mode: str) -> None:
                assert gpu.current != "main" and pool == "pool"
                gpu.log.append(f"begin {capture_error_mode}")
                gpu.is_capturing = True

            def capture_end(self) -> None:
                gpu.log.append("end")
                gpu.is_capturing = False
                if gpu.fails:
                    raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

            def replay(self) -> None:
                gpu.log.append(f"replay on {gpu.current}")

            def reset(self) -> None:
                gpu.log.append("reset")

        @contextmanager
        def stream(given: object) -> Iterator[None]:
            gpu.current = "side"
            try:
                yield
            finally:
                gpu.current = "main"

        for name, fake in {
            "Stream": Stream,
            "CUDAGraph": Graph,
            "stream": stream,
            "current_stream": lambda: Main(gpu.current),
            "synchronize": lambda: gpu.log.append("wait"),
            "graph_pool_handle": lambda: "pool",
            "empty_cache": lambda: None,
        }.items():
            monkeypatch.setattr(torch.cuda, name, fake)

    def launches(self) -> None:
        self.log.append("recorded" if self.is_capturing else f"launched on {self.current}")
        if self.is_capturing and self.fails:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")


def test_a_recording_computes_once_and_is_replayed_where_it_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    replay = CudaGraphs().record(gpu.launches)
    assert gpu.current == "main"
    replay()
    assert gpu.log == [
        "side waits for main",
        "launched on side",
        "main waits for side",
        "wait",
        "begin thread_local",
        "recorded",
        "end",
        "replay on main",
    ]


def test_a_recording_that_fails_leaves_the_stream_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    gpu.fails = True
    graphs = CudaGraphs()
    with pytest.raises(OutOfMemory, match="out of memory in a step"):
        frees_cache(graphs.record)(gpu.launches)
    assert (gpu.current, gpu.is_capturing, gpu.log[-1]) == ("main", False, "end")


def test_launches_that_fail_are_no_recording_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of those the step is not computed."""
    gpu = Gpu(monkeypatch)

    def launches() -> None:
        if not gpu.is_capturing:
            raise RuntimeError("Triton Error [CUDA]: misaligned address")
        gpu.log.append("recorded")

    with pytest.raises(RuntimeError, match="misaligned") as met:
        CudaGraphs().record(launches)
    assert not isinstance(met.value, NotRecorded) and "recorded" not in gpu.log
    gpu.fails = True
    with pytest.raises(NotRecorded, match="failed due to a previous error"):
        CudaGraphs().record(gpu.launches)
    assert "launched on side" in gpu.log


def test_recordings_are_let_go_while_their_replays_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(monkeypatch)
    graphs = CudaGraphs()
    held = [graphs.record(gpu.launches) for _ in range(2)]
    graphs.let_go()
    graphs.let_go()
    assert len(held) == 2 and gpu.log[-3:] == ["end", "reset", "reset"]
