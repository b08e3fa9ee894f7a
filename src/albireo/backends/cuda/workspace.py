"""Where the parts of a sum that is split over several programs wait for each other.

A workspace is a uint8 tensor, zeroed once: counters of programs that have arrived, which the last one sets back to
zero, then the parts. Linears of one stream share it, one after another.
"""

from __future__ import annotations

import torch

from albireo.errors import InvariantError

#: Tiles that may wait at once.
MAX_COUNTERS = 1024
_COUNTER_BYTES = 4 * MAX_COUNTERS


def workspace_bytes(num_parts_elements: int) -> int:
    """Of a workspace for so many 4-byte elements; none need none."""
    return _COUNTER_BYTES + 4 * num_parts_elements if num_parts_elements else 0


def counters_and_parts(workspace: torch.Tensor | None, num_elements: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Views: counters int32, parts float32. Raises: InvariantError when it is absent or too small."""
    size = 0 if workspace is None else workspace.numel()
    if workspace is None or size < workspace_bytes(num_elements):
        raise InvariantError(f"a linear needs a workspace of {workspace_bytes(num_elements)} bytes; there are {size}")
    parts = workspace[_COUNTER_BYTES : _COUNTER_BYTES + 4 * num_elements]
    return workspace[:_COUNTER_BYTES].view(torch.int32), parts.view(torch.float32)
