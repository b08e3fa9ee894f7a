"""A shortage of memory has one name, whoever met it; other errors keep theirs."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from albireo.backends.cuda.shortage import frees_cache
from albireo.errors import DeviceLost, OutOfMemory


class Held:
    pass


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nGPU 0 has"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported"),
    ],
    ids=["torch", "Triton", "the driver"],
)
def test_it_is_said_once_what_the_step_held_is_gone(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[weakref.ref[Held]] = []
    when_emptied: list[object] = []

    @frees_cache
    def step(size: int) -> None:
        tensor = Held()
        held.append(weakref.ref(tensor))
        raise type(error)(*error.args)

    # what is young alone: all that a session has made takes seconds
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: (gc.collect(1), when_emptied.append(held[0]())))
    with pytest.raises(OutOfMemory, match=r"out of memory in a step: .*out of memory[^\n]*$"):
        step(3)
    assert when_emptied == [None]


def test_the_end_of_a_recording_that_met_it_does_not_hide_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)

    @frees_cache
    def record() -> None:
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        finally:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    with pytest.raises(OutOfMemory):
        record()


def test_others_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: pytest.fail("nothing was short"))

    @frees_cache
    def step(fails: bool) -> int:
        if fails:
            raise RuntimeError("an illegal memory access")
        return 3

    assert step(False) == 3
    with pytest.raises(RuntimeError, match="illegal memory access"):
        step(True)


@pytest.mark.parametrize("is_lost", [True, False])
def test_a_gpu_that_answers_nothing_any_more(is_lost: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind an access that is not allowed every call fails; a launch that is refused is an error by itself."""

    def synchronize() -> None:
        if is_lost:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)

    @frees_cache
    def collect() -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported")

    words = "lost to this process: CUDA error: unspecified launch failure; the model is" if is_lost else "^CUDA error"
    with pytest.raises(DeviceLost if is_lost else RuntimeError, match=words):
        collect()
