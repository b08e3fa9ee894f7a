"""Prefixes that outlive the pool and the process: blocks of ended sequences in files, and back from there.

Called by scheduler.py, where somebody keeps such files. A file goes by the key of its block (prefix_cache.py), so that
what is found stands for the whole sequence up to its end. Does not know files, devices, or how a block is laid out.

Blocks are kept when a sequence ends: until then its own cache has them. What is read is written to its blocks by the
step that goes on behind it, before anything is computed; so a step that fails loses nothing, and others of the same
step find these blocks as any others.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Protocol

from albireo.engine.prefix_cache import Hit, PrefixCache
from albireo.engine.request import Sequence
from albireo.step import StepPlan

#: So many blocks or more are worth reading, or keeping.
LEAST_BLOCKS = 4


class BlockFiles(Protocol):
    """Contents of KV blocks by their keys, somewhere that is not the KV cache."""

    def read(self, keys: Seq[bytes]) -> list[bytes]:
        """Contents of the leading ones that are there and whole, as many as it likes."""
        ...

    def keep(self, blocks: Seq[tuple[bytes, int]]) -> None:
        """Take the contents of blocks (key, block) as they are now, those that are not there yet; never fails."""
        ...

    def close(self) -> None:
        """Wait until all is written that was taken; nothing more is."""
        ...


class KeptPrefixes:
    """Invariant: nobody is given what another model, another adapter or other images were."""

    def __init__(self, files: BlockFiles, cache: PrefixCache, block_size: int) -> None:
        """Args: cache: one whose sequences have one block table each, and no states."""
        self._files, self._cache, self._block_size = files, cache, block_size

    def read(self, seq: Sequence, hit: Hit) -> list[bytes]:
        """Contents of the blocks behind a hit; of few it is not worth it. Cost: their bytes are read and checked."""
        request = seq.request
        if not request.can_read_cache or not _is_plain(seq):
            return []
        # one token at least is left to compute, and what was swapped out is nearer
        first, end = hit.num_tokens // self._block_size, (seq.num_tokens - 1) // self._block_size
        if end - first < LEAST_BLOCKS or seq.num_swapped_tokens:
            return []
        return self._files.read([self._cache.key_at(seq, (idx + 1) * self._block_size) for idx in range(first, end)])

    def fill(self, seq: Sequence, num_found: int, contents: list[bytes], plan: StepPlan) -> None:
        """Plan to write what was read to a sequence's blocks, which are there already.

        Args: num_found: of its first positions that the KV cache had, whole blocks.
        """
        first = num_found // self._block_size
        blocks = seq.block_tables[0][first : first + len(contents)]
        plan.fills += zip(blocks, contents, strict=True)

    def keep(self, seq: Sequence) -> None:
        """A sequence that runs is over, and still has its blocks: what is full of them is kept."""
        num_blocks = seq.num_computed_tokens // self._block_size
        if num_blocks < LEAST_BLOCKS or not _is_plain(seq):
            return
        keys = (self._cache.key_at(seq, (idx + 1) * self._block_size) for idx in range(num_blocks))
        self._files.keep(list(zip(keys, seq.block_tables[0][:num_blocks], strict=True)))


def _is_plain(seq: Sequence) -> bool:
    """Whether its keys mean the same to every process: numbers of adapters do not, and images come with rows that are
    computed beside."""
    return seq.request.adapter is None and not seq.request.images
