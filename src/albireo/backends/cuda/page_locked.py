"""Memory of the host that a GPU copies from and to by itself: page-locked, where there is a GPU.

Called by whoever has such rooms. What the driver says where it cannot lock pages is the same word as that of a GPU
without memory, which has nothing to do with it; so it is told apart here.
"""

from __future__ import annotations

import torch

from albireo.backends.cuda.shortage import is_shortage
from albireo.errors import OutOfMemory


def page_locked(shape: tuple[int, ...], dtype: torch.dtype, *, is_locked: bool = True) -> torch.Tensor:
    """Zeros on the host. Args: is_locked: False where there is no GPU that would read them.

    Raises: OutOfMemory where the host has not so much, or may not lock it; the GPU's memory is not asked for.
    """
    try:
        return torch.zeros(shape, dtype=dtype, pin_memory=is_locked)
    except RuntimeError as error:
        if not is_locked or not is_shortage(error):
            raise
        num_bytes = torch.Size(shape).numel() * dtype.itemsize
        words = (str(error).splitlines() or [""])[0].rstrip(". ")
        raise OutOfMemory(
            f"{_said(num_bytes)} of page-locked memory of the host could not be had, beside what is locked already "
            f"(this is not the GPU's memory): {words}. Lower swap_space, allow more of it (ulimit -l; a container's "
            "memory limit), or end what else uses the host's memory"
        ) from None


def _said(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes:,} bytes"
