"""A shortage of memory has one name, whoever met it; other errors keep theirs."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from albireo.backends.cuda import open as opening
from albireo.backends.cuda.page_locked import page_locked
from albireo.backends.cuda.shortage import empty_cache, frees_cache, note_holder
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
    """Nor does torch, which takes that recording to be under way still."""

    def empty_cache() -> None:
        raise RuntimeError("captures_underway.empty() INTERNAL ASSERT FAILED")

    monkeypatch.setattr(torch.cuda, "empty_cache", empty_cache)

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
    """Behind an access that is not allowed every call fails; a launch that is refused is an error by itself. What has
    memory of a GPU that is lost is never freed, in which torch would end the process."""
    holder = Held()
    note_holder(holder)
    held = weakref.ref(holder)

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
    del holder
    assert (held() is not None) == is_lost


class Loading:
    """What open_model() does, in order; the model fails. Fields: log; error: what the trial step meets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: RuntimeError) -> None:
        self.log: list[str] = []
        self.error = error
        monkeypatch.setattr(opening, "place_constants", lambda *_: (self.log.append("placed"), ({}, {}))[1])
        monkeypatch.setattr(opening, "empty_cache", lambda: self.log.append("given back"))
        monkeypatch.setattr(opening, "CudaModel", self._model)

    def _model(self, *_: object, **__: object) -> None:
        self.log.append("trial")
        raise self.error

    def open(self) -> None:
        program: Any = SimpleNamespace(constants={}, states=())
        weights: Any = {}
        opening.open_model(program, weights, num_blocks=4, max_positions=8, device=torch.device("cpu"))


def test_a_model_that_has_no_room_says_so_whoever_met_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are loaded without torch's allocator. What constants were made of is given back before blocks are
    counted."""
    loading = Loading(monkeypatch, RuntimeError("Triton Error [CUDA]: out of memory"))
    with pytest.raises(
        OutOfMemory, match=r"no room for the model: Triton .*memory\. End .*lower max_num_batched_tokens"
    ):
        loading.open()
    assert loading.log == ["placed", "given back", "trial"]
    with pytest.raises(RuntimeError, match=r"^an illegal memory access"):
        Loading(monkeypatch, RuntimeError("an illegal memory access")).open()


@pytest.mark.parametrize("is_public", [True, False])
def test_page_locked_memory_is_given_back_too(is_public: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whichever name torch has for it: that of 2.13, or the one before."""
    given: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: given.append("device"))
    if is_public:
        monkeypatch.setattr(torch.accelerator, "empty_host_cache", lambda: given.append("host"), raising=False)
    else:
        monkeypatch.delattr(torch.accelerator, "empty_host_cache", raising=False)
        monkeypatch.setattr(torch._C, "_host_emptyCache", lambda: given.append("host"), raising=False)
    empty_cache()
    assert given == ["device", "host"]


def test_memory_of_the_host_that_cannot_be_locked_is_not_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a step and where a model is opened: the driver's word is that of a GPU without memory."""
    zeros, error = torch.zeros, RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported")

    def locked(*args: Any, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
        if pin_memory:
            raise error
        return zeros(*args, **kwargs)

    monkeypatch.setattr(torch, "zeros", locked)
    assert page_locked((2, 3), torch.int32, is_locked=False).shape == (2, 3)
    with pytest.raises(OutOfMemory, match=r"^3\.0 MiB of page-locked memory of the host .*not the GPU's.* swap_space"):
        frees_cache(page_locked)((3 << 18,), torch.int32)
    monkeypatch.setattr(opening, "place_constants", lambda *_: page_locked((7,), torch.int32))
    nothing: Any = SimpleNamespace(constants={}, states=())
    with pytest.raises(OutOfMemory, match=r"^28 bytes of page-locked memory"):
        opening.open_model(nothing, nothing, num_blocks=1, max_positions=1)
    error.args = ("CUDA error: an illegal memory access was encountered",)
    with pytest.raises(RuntimeError, match="illegal"):
        page_locked((3,), torch.int32)
