"""swap_blocks: blocks of the KV cache to host memory and back.

A HostKV holds blocks one after another, every layer of a block side by side, so that blocks with neighbouring numbers
travel as one copy by the GPU's copy engine while kernels run; in the cache a block is in 2 L places. Between the two
stands a staging area on the device, filled and emptied by copy_blocks' kernel.

Called in stream order: what is swapped out is there once the stream is waited for, and until then the host memory must
not be read; what is swapped in is there for the next kernel. More blocks than the staging area holds go in turns. On
CPU tensors the same code runs with plain memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from albireo.backends.cuda.kernels.copy_blocks import launch_copy, pairs_on, words_of
from albireo.backends.cuda.kv import DeviceKV
from albireo.backends.cuda.page_locked import page_locked
from albireo.errors import InvariantError


class HostKV:
    """num_blocks blocks in host memory, pinned where the cache is on a GPU, and staging for `staged` of them.

    Fields:
        blocks: by array of the cache (elements, scales): int32 [num_blocks, 2 L, words of a block].
        staging: the same on the device, [staged, 2 L, words].
    """

    def __init__(self, kv: DeviceKV, num_blocks: int, staged: int) -> None:
        device = kv.device
        self.blocks, self.staging = [], []
        for words in words_of(kv):
            shape = (words.shape[0], words.shape[2])
            blocks = page_locked((num_blocks, *shape), torch.int32, is_locked=device.type == "cuda")
            self.blocks.append(blocks)
            self.staging.append(torch.zeros((staged, *shape), dtype=torch.int32, device=device))
        self.num_blocks, self.staged = num_blocks, staged


def swap_out(kv: DeviceKV, host: HostKV, pairs: Sequence[tuple[int, int]]) -> None:
    """Copy blocks of the cache, first of a pair, to blocks of host memory, second of a pair.

    Raises: InvariantError for a number that there is no block of, or two pairs with one target.
    """
    _check(pairs, kv.num_blocks, host.num_blocks)
    for some in _turns(pairs, host.staged):
        gather = pairs_on(kv.device, [(block, i) for i, (block, _) in enumerate(some)])
        for words, staging, blocks in zip(words_of(kv), host.staging, host.blocks, strict=True):
            launch_copy(words, staging.transpose(0, 1), gather)
            for start, count, first in _runs([target for _, target in some]):
                blocks[first : first + count].copy_(staging[start : start + count], non_blocking=True)


def swap_in(kv: DeviceKV, host: HostKV, pairs: Sequence[tuple[int, int]]) -> None:
    """Copy blocks of host memory, first of a pair, to blocks of the cache, second of a pair. Raises: as swap_out."""
    _check(pairs, host.num_blocks, kv.num_blocks)
    for some in _turns(pairs, host.staged):
        scatter = pairs_on(kv.device, [(i, block) for i, (_, block) in enumerate(some)])
        for words, staging, blocks in zip(words_of(kv), host.staging, host.blocks, strict=True):
            for start, count, first in _runs([source for source, _ in some]):
                staging[start : start + count].copy_(blocks[first : first + count], non_blocking=True)
            launch_copy(staging.transpose(0, 1), words, scatter)


def _check(pairs: Sequence[tuple[int, int]], num_sources: int, num_targets: int) -> None:
    targets = [target for _, target in pairs]
    if len(set(targets)) != len(targets):
        raise InvariantError(f"swapping blocks {list(pairs)} writes a block twice")
    for source, target in pairs:
        if not (0 <= source < num_sources and 0 <= target < num_targets):
            raise InvariantError(f"swapping block {source} of {num_sources} to {target} of {num_targets}")


def _turns(pairs: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    return (pairs[start : start + size] for start in range(0, len(pairs), size))


def _runs(numbers: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Neighbours that count up by one: (index of the first, how many, the first number)."""
    start = 0
    for i in range(1, len(numbers) + 1):
        if i == len(numbers) or numbers[i] != numbers[i - 1] + 1:
            yield start, i - start, numbers[start]
            start = i
