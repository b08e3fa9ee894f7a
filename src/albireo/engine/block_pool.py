"""Fixed pool of KV blocks with reference counts and eviction of the cached blocks freed longest ago.

Called by scheduler.py and prefix_cache.py. Does not know tokens, tensors or devices: a block here is an integer.

One pool a block group: layers of one group use the same positions of the same blocks. BlockTables works on all groups.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from albireo.errors import InvariantError

NULL_BLOCK = 0

Tables = tuple[list[int], ...]


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

    def find(self, key: bytes) -> int | None:
        """The block that holds this content, used or cached."""
        return self._block_of.get(key)

    def check_invariants(self, tables: Iterable[Sequence[int]]) -> None:
        """Args: tables: every block table of this group.

        Raises: InvariantError. Cost: O(num_blocks + table lengths); for tests.
        """
        refs = [0] * self.num_blocks
        for table in tables:
            for block in table:
                refs[block] += 1
        if refs != self._num_refs or refs[NULL_BLOCK]:
            wrong = {b: (self._num_refs[b], n) for b, n in enumerate(refs) if n != self._num_refs[b] or (b == 0 and n)}
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


class BlockTables:
    """Block tables of sequences over all groups. Invariant: each operation happens in all groups or in none."""

    def __init__(self, num_blocks: Sequence[int], block_size: int) -> None:
        self.pools = [BlockPool(count) for count in num_blocks]
        self.block_size = block_size

    def grow(self, tables: Tables, start: int, end: int) -> list[tuple[int, int, int]] | None:
        """Make positions start .. end-1 writable by the tables' owner alone; those before start exist already.

        Returns: copies to make first, (group, source, target), for a shared block that is about to be written;
            or None if blocks are missing (nothing is changed then).
        Cost: O(blocks added).
        """
        num_blocks = -(-end // self.block_size)
        first = start // self.block_size
        grown = []
        for pool, table in zip(self.pools, tables, strict=True):
            is_shared = first < len(table) and pool.num_refs(table[first]) > 1
            missing = max(num_blocks - len(table), 0)
            if missing + is_shared > pool.num_available:
                return None
            grown.append((missing, is_shared))
        copies = []
        for group, (missing, is_shared) in enumerate(grown):
            blocks = self.pools[group].allocate(missing + is_shared)
            assert blocks is not None, "counted above"
            if is_shared:
                copies.append((group, tables[group][first], blocks[-1]))
                self.pools[group].free([tables[group][first]])
                tables[group][first] = blocks.pop()
            tables[group].extend(blocks)
        return copies

    def has_room(self, hits: Sequence[Sequence[int]], num_tokens: int) -> bool:
        """Whether num_tokens positions fit when the leading blocks are hits that would be shared."""
        num_blocks = -(-num_tokens // self.block_size)
        for pool, blocks in zip(self.pools, hits, strict=True):
            num_idle = sum(pool.num_refs(block) == 0 for block in blocks)
            if num_blocks - len(blocks) + num_idle > pool.num_available:
                return False
        return True

    def share(self, source: Sequence[Sequence[int]], target: Tables, num_tokens: int) -> None:
        """Let the empty target tables hold the blocks of the first num_tokens positions of source, too."""
        num_blocks = -(-num_tokens // self.block_size)
        for pool, blocks, table in zip(self.pools, source, target, strict=True):
            for block in blocks[:num_blocks]:
                pool.share(block)
                table.append(block)

    def num_shared(self, tables: Tables, num_tokens: int) -> int:
        """Of the first num_tokens positions those in leading full blocks that other tables hold, too."""
        pool, num_blocks = self.pools[0], 0
        for block in tables[0][: num_tokens // self.block_size]:
            if pool.num_refs(block) == 1:
                break
            num_blocks += 1
        return num_blocks * self.block_size

    def release(self, tables: Tables) -> None:
        """Empty the tables, tail first: a cached prefix is of use without its tail, but not the reverse."""
        for pool, table in zip(self.pools, tables, strict=True):
            pool.free(reversed(table))
            table.clear()

    def trim(self, tables: Tables, num_tokens: int) -> None:
        """Let the blocks go that lie behind the first num_tokens positions. Cost: O(blocks freed)."""
        num_blocks = -(-num_tokens // self.block_size)
        for pool, table in zip(self.pools, tables, strict=True):
            if len(table) > num_blocks:
                pool.free(reversed(table[num_blocks:]))
                del table[num_blocks:]

    @property
    def usage_frac(self) -> float:
        """Fraction of the fullest pool's blocks that are in tables."""
        return max(pool.num_used / (pool.num_blocks - 1) for pool in self.pools)
