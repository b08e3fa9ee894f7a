"""Fixed pool of KV blocks with reference counts and eviction of the cached blocks freed longest ago.

Called by block_tables.py and prefix_cache.py. Does not know tokens, tensors or devices: a block here is an integer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from albireo.errors import InvariantError
from albireo.step import NULL_BLOCK


class BlockPool:
    """Invariants, checked by check_invariants():
    1. every block but the null block is exactly one of: free, used (num_refs > 0), cached (has a key, num_refs 0);
    2. a key names one block and a block has at most one key;
    3. num_refs == number of tables holding the block;
    4. block 0 is the null block: never handed out, never freed.
    """

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._num_refs = [0] * num_blocks
        self._keys: list[bytes | None] = [None] * num_blocks
        self._block_of: dict[bytes, int] = {}
        # A stack for blocks that hold nothing: the one freed last is the one most likely still in the CPU's cache.
        self._free = list(range(num_blocks - 1, NULL_BLOCK, -1))
        # Blocks worth keeping, oldest-freed first. A linked list with an index: O(1) from either end and the middle.
        self._cached: OrderedDict[int, None] = OrderedDict()

    @property
    def num_available(self) -> int:
        """Blocks that allocate() could hand out: free ones and cached ones."""
        return len(self._free) + len(self._cached)

    @property
    def num_used(self) -> int:
        """Blocks in at least one table."""
        return self.num_blocks - 1 - self.num_available

    def allocate(self, num_blocks: int) -> list[int] | None:
        """Take blocks, free ones first, then evicting cached ones oldest-freed first.

        Returns: block ids, or None if fewer than num_blocks are available (nothing is taken then).
        Cost: O(num_blocks).
        """
        if num_blocks > self.num_available:
            return None
        blocks = []
        for _ in range(num_blocks):
            block = self._free.pop() if self._free else self._evict()
            self._num_refs[block] = 1
            blocks.append(block)
        return blocks

    def _evict(self) -> int:
        block, _ = self._cached.popitem(last=False)
        self._drop_key(block)
        return block

    def _drop_key(self, block: int) -> None:
        key = self._keys[block]
        if key is None or self._block_of.pop(key, None) != block:
            raise InvariantError(f"block {block} and its key do not name each other")
        self._keys[block] = None

    def share(self, block: int) -> None:
        """Hold a block once more: one that is used, or one that is cached, which is then used again. Cost: O(1)."""
        if self._num_refs[block] == 0:
            if block not in self._cached:
                raise InvariantError(f"block {block} is shared but holds nothing")
            del self._cached[block]
        self._num_refs[block] += 1

    def free(self, blocks: Iterable[int]) -> None:
        """Let blocks go, in the order in which they may be evicted. Cost: O(1) a block."""
        for block in blocks:
            if block == NULL_BLOCK or self._num_refs[block] <= 0:
                raise InvariantError(f"block {block} is freed but nobody holds it (refs {self._num_refs[block]})")
            self._num_refs[block] -= 1
            if self._num_refs[block] == 0:
                if self._keys[block] is None:
                    self._free.append(block)
                else:
                    self._cached[block] = None

    def cached(self) -> list[int]:
        """Blocks that nobody holds and find() may give, the one evicted first in front."""
        return list(self._cached)

    def num_refs(self, block: int) -> int:
        """Number of tables holding the block."""
        return self._num_refs[block]

    def publish(self, block: int, key: bytes) -> bool:
        """Name the content of a used block, so that others find it.

        Returns: False when another block already goes by that key; this one then stays without a name.
        """
        if key in self._block_of:
            return False
        if self._keys[block] is not None or self._num_refs[block] == 0:
            raise InvariantError(f"block {block} cannot be published: refs {self._num_refs[block]}, or it has a key")
        self._keys[block] = key
        self._block_of[key] = block
        return True

    def withdraw(self, block: int) -> None:
        """Take back publish(): the content was never written."""
        self._drop_key(block)
        if block in self._cached:
            del self._cached[block]
            self._free.append(block)

    def forget(self) -> None:
        """Take all names back: find() gives nothing of what there is now. Used blocks stay whose they are.

        Cost: O(blocks with a key).
        """
        for block in list(self._block_of.values()):
            self.withdraw(block)

    def find(self, key: bytes) -> int | None:
        """The block that holds this content, used or cached."""
        return self._block_of.get(key)

    def check_invariants(self, tables: Iterable[Sequence[int]]) -> None:
        """Args: tables: every block table; null blocks in them count for nothing.

        Raises: InvariantError. Cost: O(num_blocks + table lengths); for tests.
        """
        refs = [0] * self.num_blocks
        for table in tables:
            for block in table:
                refs[block] += block != NULL_BLOCK
        if refs != self._num_refs:
            wrong = {b: (self._num_refs[b], n) for b, n in enumerate(refs) if n != self._num_refs[b]}
            raise InvariantError(f"reference counts (kept, counted) differ: {wrong}")
        used = {block for block, count in enumerate(refs) if count}
        parts = [*self._free, *self._cached, *used]
        if sorted(parts) != list(range(1, self.num_blocks)):
            raise InvariantError(f"free {self._free}, cached {[*self._cached]}, used {used} do not partition the pool")
        named = {block: key for block, key in enumerate(self._keys) if key is not None}
        if named != {block: key for key, block in self._block_of.items()}:
            raise InvariantError("keys and blocks do not name each other")
        if any(block in named for block in self._free) or any(block not in named for block in self._cached):
            raise InvariantError("a free block has a key, or a cached block has none")
