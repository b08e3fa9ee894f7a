"""What becomes of a GPU that is out of memory in a step: torch's cache is emptied, and the step fails as OutOfMemory.
And of one that is lost: behind an access that is not allowed, say, every call of the process fails, whatever it asks.

Used by model.py around everything that reaches the GPU, by open.py, and where a model goes to sleep (api/sleeping.py).
Does not know who is to do without (api/guarded_engine.py).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import ParamSpec, TypeVar
from weakref import WeakSet

import torch

from albireo.errors import DeviceLost, OutOfMemory

P = ParamSpec("P")
R = TypeVar("R")
#: All that has tensors, events and recordings of a GPU.
_HOLDERS: WeakSet[object] = WeakSet()


def note_holder(thing: object) -> None:
    """Of a GPU that is lost it is never freed: torch would end the process, whoever's that is, in the middle of it."""
    _HOLDERS.add(thing)


def frees_cache(reach: Callable[P, R]) -> Callable[P, R]:
    """The same, but torch's, Triton's and the driver's error is OutOfMemory, raised once torch's cache is emptied; and
    DeviceLost where the GPU answers nothing any more."""

    @wraps(reach)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return reach(*args, **kwargs)
        except RuntimeError as error:
            if not is_shortage(error):
                if _is_lost():
                    _keep_holders()
                    why = (str(error).splitlines() or [type(error).__name__])[0]
                    raise DeviceLost(
                        f"the GPU is lost to this process: {why}; the model is to be loaded again"
                    ) from error
                raise
            words = str(error).splitlines()[0]
        # Not while the error is held: its traceback holds tensors of the step. Torch takes a recording whose end failed
        # to be under way for ever, and then refuses.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()
        raise OutOfMemory(f"the GPU is out of memory in a step: {words}")

    return guarded


def _keep_holders() -> None:
    """For good, beyond the end of the interpreter, too."""
    for thing in list(_HOLDERS):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
        _HOLDERS.discard(thing)


def empty_cache() -> None:
    """Give the driver what torch keeps of tensors that are gone, page-locked memory of the host among it."""
    torch.cuda.empty_cache()
    if torch.cuda.is_initialized():
        # public from torch 2.13 on
        of_host = getattr(torch.accelerator, "empty_host_cache", None) or getattr(torch._C, "_host_emptyCache", None)
        if of_host is not None:
            of_host()


def _is_lost() -> bool:
    """Whether nothing can be asked of the GPU any more: an error of one call alone does not come again."""
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def is_shortage(error: BaseException | None) -> bool:
    """Whether it, or what it was raised over, is torch's, Triton's or the driver's word for that."""
    # Triton loads kernels, and CUDA records graphs, without torch's allocator and its class. The end of a recording
    # that failed is an error of its own, raised over the first.
    if error is None:
        return False
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error):
        return True
    return is_shortage(error.__context__)
