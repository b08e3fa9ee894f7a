"""How many KV blocks a GPU has room for, once everything else is there.

Asked by model.py behind a trial step of the largest size. Does not allocate.
"""

from __future__ import annotations

import torch

from albireo.errors import OutOfMemory


def blocks_that_fit(wanted: int, block_bytes: int, reserve_bytes: int, least: int, device: torch.device) -> int:
    """Of those that are wanted; all of them where there is no GPU.

    Args: block_bytes: of one, and of what goes with it beside the cache. reserve_bytes: to stay free. least: below
        which nothing runs.
    Raises: OutOfMemory when there is no room for these.
    """
    if device.type != "cuda" or not block_bytes:
        return wanted
    free, total = torch.cuda.mem_get_info(device)
    fits = (free - reserve_bytes) // block_bytes
    if fits < least:
        raise OutOfMemory(
            f"after the weights and a trial step {free / 2**30:.2f} of {total / 2**30:.2f} GiB of GPU memory are "
            f"free, of which {reserve_bytes / 2**30:.2f} are to stay so; a KV block takes {block_bytes} bytes and "
            f"{least} are needed. Raise gpu_memory_utilization, lower max_num_batched_tokens, end what else uses "
            "the GPU, or use a smaller model"
        )
    return min(wanted, int(fits))
