"""Chained block hashes: which leading blocks of a sequence are in the KV cache already, or will be within this step.

Called by scheduler.py. Knows token ids and block numbers; does not know budgets, order or devices.

A full block's key is SHA-256(key of the block before it, its token ids as 4-byte little-endian), so it stands for the
whole sequence up to its end. The first block's predecessor is 32 zero bytes, or the SHA-256 of what sets the request
apart: its salt, its adapter.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from albireo.engine.block_pool import BlockPool
from albireo.engine.request import Sequence

_NO_SALT = bytes(32)


def root_key(cache_salt: str | None, adapter: int | None = None) -> bytes:
    """What the first block's key is chained to: requests share blocks only with those of the same salt and adapter."""
    root = _NO_SALT if cache_salt is None else hashlib.sha256(cache_salt.encode()).digest()
    return root if adapter is None else hashlib.sha256(root + adapter.to_bytes(8, "little")).digest()


def next_key(parent: bytes, token_ids: list[int]) -> bytes:
    """Key of a full block behind another, or behind root_key()."""
    return hashlib.sha256(parent + struct.pack(f"<{len(token_ids)}I", *token_ids)).digest()


@dataclass(slots=True)
class Hit:
    """Leading full blocks found, a list a group, and the positions they cover."""

    blocks: tuple[list[int], ...]
    num_tokens: int = 0


class PrefixCache:
    """Invariant: a key is published when its block is scheduled to be written, and withdrawn when that step fails.

    Within a step every layer writes its KV before it reads any, so a sequence scheduled later in the same step may
    already use the block: requests that arrive together compute a shared prefix once.
    """

    def __init__(self, pools: list[BlockPool], block_size: int, is_enabled: bool) -> None:
        self.is_enabled = is_enabled
        self._pools = pools
        self._block_size = block_size
        self._published: list[tuple[BlockPool, int]] = []

    def match(self, seq: Sequence) -> Hit:
        """Longest run of leading full blocks that need not be computed, leaving at least one token to compute.

        Cost: O(blocks found), and O(block_size) a block hashed for the first time.
        """
        hit = Hit(tuple([] for _ in self._pools))
        if not self.is_enabled or not seq.request.can_read_cache:
            return hit
        for idx in range((seq.num_tokens - 1) // self._block_size):
            key = self._key(seq, idx)
            found = [pool.find(key) for pool in self._pools]
            if None in found:
                return hit
            for blocks, block in zip(hit.blocks, found, strict=True):
                blocks.append(block)  # type: ignore[arg-type]  # None is excluded above
            hit.num_tokens += self._block_size
        return hit

    def publish(self, seq: Sequence, start: int, end: int) -> None:
        """Make the blocks that become full when positions start .. end-1 are written known to all.

        Cost: one SHA-256 a block.
        """
        if not self.is_enabled:
            return
        for idx in range(start // self._block_size, end // self._block_size):
            key = self._key(seq, idx)
            for pool, table in zip(self._pools, seq.block_tables, strict=True):
                if pool.publish(table[idx], key):
                    self._published.append((pool, table[idx]))

    def commit(self) -> None:
        """The step was executed: what it published is true."""
        self._published.clear()

    def roll_back(self) -> None:
        """The step failed: what it published was not written."""
        for pool, block in self._published:
            pool.withdraw(block)
        self._published.clear()

    def _key(self, seq: Sequence, idx: int) -> bytes:
        """Key of full block idx; keys are made once a sequence, in order, when first asked for."""
        keys = seq.block_keys
        while len(keys) <= idx:
            parent = keys[-1] if keys else seq.request.cache_root
            start = len(keys) * self._block_size
            keys.append(next_key(parent, seq.slice(start, start + self._block_size)))
        return keys[idx]
