"""Upload: the way of rows from host memory to the device, through pinned buffers, so that reading and copying overlap.

Used by constants.py. Where the device is the CPU it copies straight.
"""

from __future__ import annotations

import torch

from albireo.backends.cuda.page_locked import page_locked


class Upload:
    """Two buffers of num_bytes each; what is copied at once must fit in one."""

    def __init__(self, device: torch.device, num_bytes: int) -> None:
        self.device = device
        self.num_bytes = num_bytes
        self._buffers: list[torch.Tensor] = []
        self._copied: list[torch.cuda.Event] = []
        self._next = 0
        if device.type == "cuda":
            self._buffers = [page_locked((num_bytes,), torch.uint8) for _ in range(2)]
            self._copied = [torch.cuda.Event() for _ in range(2)]

    def copy(self, source: torch.Tensor, target: torch.Tensor) -> None:
        """source, on the host, rounded to target's type to nearest even; it may be gone when this returns."""
        if not self._buffers:
            target.copy_(source)
        else:
            self._through_buffer(source, target)

    def to_device(self, source: torch.Tensor) -> torch.Tensor:
        """The same on the device, where it may be changed."""
        if not self._buffers:
            return source.clone()
        target = torch.empty(source.shape, dtype=source.dtype, device=self.device)
        self._through_buffer(source, target)
        return target

    def _through_buffer(self, source: torch.Tensor, target: torch.Tensor) -> None:
        index, self._next = self._next, 1 - self._next
        self._copied[index].synchronize()
        size = target.numel() * target.element_size()
        staged = self._buffers[index][:size].view(target.dtype).reshape(target.shape)
        staged.copy_(source)
        target.copy_(staged, non_blocking=True)
        self._copied[index].record()
