"""What becomes of a GPU that is out of memory in a step: torch's cache is emptied, and the step fails as OutOfMemory.

Used by model.py around everything that reaches the GPU, and where a model goes to sleep (api/sleeping.py). Does not
know who is to do without (api/guarded_engine.py).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

import torch

from albireo.errors import OutOfMemory

P = ParamSpec("P")
R = TypeVar("R")


def frees_cache(reach: Callable[P, R]) -> Callable[P, R]:
    """The same, but torch's, Triton's and the driver's error is OutOfMemory, raised once torch's cache is emptied."""

    @wraps(reach)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return reach(*args, **kwargs)
        except RuntimeError as error:
            if not _is_shortage(error):
                raise
            words = str(error).splitlines()[0]
        # Not while the error is held: its traceback holds tensors of the step.
        torch.cuda.empty_cache()
        raise OutOfMemory(f"the GPU is out of memory in a step: {words}")

    return guarded


def empty_cache() -> None:
    """Give the driver what torch keeps of tensors that are gone."""
    torch.cuda.empty_cache()


def _is_shortage(error: BaseException | None) -> bool:
    # Triton loads kernels, and CUDA records graphs, without torch's allocator and its class. The end of a recording
    # that failed is an error of its own, raised over the first.
    if error is None:
        return False
    if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in str(error):
        return True
    return _is_shortage(error.__context__)
