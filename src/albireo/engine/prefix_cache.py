"""Chained block hashes: which leading blocks of a sequence are in the KV cache already, or will be within this step.

Called by scheduler.py. Knows token ids and block numbers; does not know budgets, order or devices.

A full block's key is SHA-256(key of the block before it, its token ids as 4-byte little-endian, the keys of images that
it has tokens of), so it stands for the whole sequence up to its end. The first block's predecessor is 32 zero bytes, or
the SHA-256 of what sets the request apart: its salt, its adapter. Each block group has a block of its own for the same
positions, by the key and its number. Where layers keep states, blocks are of use up to where there is a snapshot of
these.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from albireo.engine.block_tables import BlockTables
from albireo.engine.request import Sequence
from albireo.engine.state_slots import StateSlots
from albireo.image_input import keys_within
from albireo.step import NULL_BLOCK

_NO_SALT = bytes(32)
#: Positions in so many blocks or more, found without a snapshot of states, are worth a step that ends behind them.
_LEAST_BRANCH = 4


def root_key(cache_salt: str | None, adapter: int | None = None) -> bytes:
    """What the first block's key is chained to: requests share blocks only with those of the same salt and adapter."""
    root = _NO_SALT if cache_salt is None else hashlib.sha256(cache_salt.encode()).digest()
    return root if adapter is None else hashlib.sha256(root + adapter.to_bytes(8, "little")).digest()


def next_key(parent: bytes, token_ids: list[int], of_images: bytes = b"") -> bytes:
    """Key of a full block behind another, or behind root_key(). Args: of_images: see keys_within()."""
    return hashlib.sha256(parent + struct.pack(f"<{len(token_ids)}I", *token_ids) + of_images).digest()


@dataclass(slots=True)
class Hit:
    """Leading full blocks found, a list a group, and the positions they cover.

    Of a group with a window those that the next token looks into; the null block stands for the others.
    branch_at: there were blocks up to here, but no snapshot of states, and it is worth one; 0: nowhere.
    """

    blocks: tuple[list[int], ...]
    num_tokens: int = 0
    branch_at: int = 0


class PrefixCache:
    """Invariant: a key is published when its block is scheduled to be written, and withdrawn when that step fails.

    Within a step every layer writes its KV before it reads any, so a sequence scheduled later in the same step may
    already use the block: requests that arrive together compute a shared prefix once.
    """

    def __init__(self, tables: BlockTables, states: StateSlots, is_enabled: bool) -> None:
        self.is_enabled = is_enabled
        self._states = states
        self._tables, self._pool = tables, tables.pool
        self._block_size = tables.block_size
        self._published: list[int] = []

    def match(self, seq: Sequence) -> Hit:
        """Longest run of leading full blocks that need not be computed, leaving at least one token to compute.

        Cost: O(blocks found), and O(block_size) a block hashed for the first time.
        """
        windows = self._tables.windows
        hit = Hit(tuple([] for _ in windows))
        if not self.is_enabled or not seq.request.can_read_cache:
            return hit
        num_blocks = (seq.num_tokens - 1) // self._block_size
        for group, window in enumerate(windows):
            if window is None:
                found = self._run(seq, group, num_blocks)
                hit.blocks[group].extend(found)
                num_blocks = len(found)
        num_blocks = self._end_within_windows(seq, num_blocks)
        if self._states.is_used:
            num_there = num_blocks
            num_blocks = self._end_at_snapshot(seq, num_blocks)
            if num_there - num_blocks >= _LEAST_BRANCH:
                hit.branch_at = num_there * self._block_size
        hit.num_tokens = num_blocks * self._block_size
        for group, blocks in enumerate(hit.blocks):
            if windows[group] is None:
                del blocks[num_blocks:]
                continue
            first = self._tables.first_seen(group, hit.num_tokens)
            seen = [self._pool.find(self.key(seq, idx, group)) for idx in range(first, num_blocks)]
            blocks += [NULL_BLOCK] * first + [block for block in seen if block is not None]
        return hit

    def _run(self, seq: Sequence, group: int, most: int) -> list[int]:
        """Leading blocks of a group, as many as there are in a row."""
        found = []
        for idx in range(most):
            block = self._pool.find(self.key(seq, idx, group))
            if block is None:
                break
            found.append(block)
        return found

    def _end_within_windows(self, seq: Sequence, num_blocks: int) -> int:
        """The most leading blocks, so many or fewer, behind which every window finds all that it looks into."""
        groups = [group for group, window in enumerate(self._tables.windows) if window is not None]
        num_checked = 0
        while num_blocks and num_checked < len(groups):
            group = groups[num_checked]
            first = self._tables.first_seen(group, num_blocks * self._block_size)
            for idx in range(num_blocks - 1, first - 1, -1):
                if self._pool.find(self.key(seq, idx, group)) is None:
                    # whoever goes on behind it, up to here, looks into it
                    num_blocks, num_checked = idx, 0
                    break
            else:
                num_checked += 1
        return num_blocks

    def _end_at_snapshot(self, seq: Sequence, num_blocks: int) -> int:
        """The most leading blocks, so many or fewer, behind which there is a snapshot, and windows find all."""
        while num_blocks:
            if self._states.has(self.key(seq, num_blocks - 1, 0)):
                seen = self._end_within_windows(seq, num_blocks)
                if seen == num_blocks:
                    break
                num_blocks = seen
            else:
                num_blocks -= 1
        return num_blocks

    def key_at(self, seq: Sequence, num_tokens: int) -> bytes:
        """What the first num_tokens tokens of a sequence go by, whole blocks."""
        return self.key(seq, num_tokens // self._block_size - 1, 0)

    def publish(self, seq: Sequence, start: int, end: int) -> None:
        """Make the blocks that become full when positions start .. end-1 are written known to all.

        Cost: one SHA-256 a block.
        """
        if not self.is_enabled:
            return
        for idx in range(start // self._block_size, end // self._block_size):
            for group, table in enumerate(seq.block_tables):
                block = table[idx]
                if block != NULL_BLOCK and self._pool.publish(block, self.key(seq, idx, group)):
                    self._published.append(block)

    def commit(self) -> None:
        """The step was executed: what it published is true."""
        self._published.clear()
        self._states.commit([self.key_at(seq, num_tokens) for seq, num_tokens in self._states.due()])

    def roll_back(self) -> None:
        """The step failed: what it published was not written."""
        for block in self._published:
            self._pool.withdraw(block)
        self._published.clear()
        self._states.roll_back()

    def reset(self) -> None:
        """Forget all that is known, between steps. Who runs goes on, and publishes what it computes from here on."""
        self._pool.forget()
        self._states.forget()

    def key(self, seq: Sequence, idx: int, group: int = 0) -> bytes:
        """Key of full block idx; keys are made once a sequence, in order, when first asked for."""
        keys = seq.block_keys
        while len(keys) <= idx:
            parent = keys[-1] if keys else seq.request.cache_root
            start = len(keys) * self._block_size
            end = start + self._block_size
            request = seq.request
            apart = keys_within(request.images, start, end) if request.images else b""
            apart += request.prefix_key if start < request.prefix else b""
            keys.append(next_key(parent, seq.slice(start, end), apart))
        return keys[idx] + bytes((group,)) if group else keys[idx]
