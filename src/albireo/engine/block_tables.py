"""Block tables of sequences, one a block group, over one pool; how many blocks that takes.

Called by scheduler.py and drafting.py, and by whoever shares out memory. Does not know tokens or requests.

Layers of one group write the same positions to the same blocks, each to a part of its own; all blocks are of one size.
A layer with a sliding window looks at the newest positions alone, so the blocks of its group that every token from now
on looks past are let go: their places in a table hold the null block. Where a layer sees chunks, a token looks into no
block before its own chunk's; as a window of a chunk's length it keeps at most as many.
"""

from __future__ import annotations

from collections.abc import Sequence

from albireo.engine.block_pool import BlockPool
from albireo.errors import InvariantError
from albireo.step import NULL_BLOCK

#: Blocks of a sequence that may go on without end, as all of its layers have windows.
_NO_END = 1 << 26

Tables = tuple[list[int], ...]
#: Of each block group: how many positions a token sees, its own included; None: all.
Windows = tuple[int | None, ...]


def blocks_needed(num_tokens: int, block_size: int, windows: Windows, max_new: int, *, num_sequences: int = 1) -> int:
    """Blocks that sequences of so many tokens hold at most, over all groups, while they become so long.

    Args: max_new: most tokens that one step computes, of all of them; a window's blocks are let go between steps.
    """
    num_all = -(-num_tokens // block_size)
    total = 0
    for window in windows:
        most = num_each = num_all
        if window is not None:
            most, num_each = (min(num_all, _of_window(window, block_size, new)) for new in (max_new, 1))
        total += most + (num_sequences - 1) * num_each
    return total


def _of_window(window: int, block_size: int, max_new: int) -> int:
    """Blocks that window - 1 + max_new positions in a row lie in, wherever they begin."""
    return -(-(window + max_new - 2) // block_size) + 1


def capacity_tokens(num_blocks: int, block_size: int, windows: Windows, max_new: int) -> int:
    """Tokens, in whole blocks, of the longest sequence that so many blocks hold, the null block not counted."""
    low, high = 0, _NO_END
    while low < high:
        middle = (low + high + 1) // 2
        fits = blocks_needed(middle * block_size, block_size, windows, max_new) <= num_blocks
        low, high = (middle, high) if fits else (low, middle - 1)
    return low * block_size


class BlockTables:
    """Invariants: 1. each operation happens in all groups or in none;
    2. a group without a window has no null block in its tables; one with a window has them in front alone.
    """

    def __init__(
        self, num_blocks: int, block_size: int, windows: Windows = (None,), in_chunks: Sequence[int] = ()
    ) -> None:
        """Args: in_chunks: groups whose window is the length of chunks."""
        self.pool = BlockPool(num_blocks)
        self.block_size = block_size
        self.windows = windows
        self._in_chunks = frozenset(in_chunks)
        self._has_windows = any(window is not None for window in windows)

    def first_seen(self, group: int, position: int) -> int:
        """Place of the first block that the token at a position looks into."""
        window = self.windows[group]
        if window is None:
            return 0
        seen = position - position % window if group in self._in_chunks else position - window + 1
        return max(0, seen) // self.block_size

    def grow(self, tables: Tables, start: int, end: int) -> list[tuple[int, int]] | None:
        """Make positions start .. end-1 writable by the tables' owner alone; those before start exist already.

        Returns: copies to make first, (source, target), for a shared block that is about to be written; or None if
            blocks are missing (nothing is changed then).
        Cost: O(blocks added).
        """
        pool, num_blocks, first = self.pool, -(-end // self.block_size), start // self.block_size
        shared = [first < len(table) and pool.num_refs(table[first]) > 1 for table in tables]
        blocks = pool.allocate(sum(max(num_blocks - len(table), 0) for table in tables) + sum(shared))
        if blocks is None:
            return None
        copies = []
        for table, is_shared in zip(tables, shared, strict=True):
            if is_shared:
                copies.append((table[first], blocks.pop()))
                pool.free([table[first]])
                table[first] = copies[-1][1]
            missing = num_blocks - len(table)
            if missing > 0:
                table += blocks[:missing]
                del blocks[:missing]
        return copies

    def let_go(self, tables: Tables, position: int) -> None:
        """Free the blocks that no token from a position on looks into; where there are none yet, leave their places
        empty. Cost: O(blocks freed)."""
        if not self._has_windows:
            return
        for group, table in enumerate(tables):
            first = self.first_seen(group, position)
            end = min(first, len(table))
            start = end
            while start > 0 and table[start - 1] != NULL_BLOCK:
                start -= 1
            self.pool.free(table[start:end])
            table[start:first] = [NULL_BLOCK] * (first - start)

    def has_room(self, hits: Sequence[Sequence[int]], num_tokens: int, max_new: int) -> bool:
        """Whether num_tokens positions fit when the leading blocks are hits that would be shared.

        Args: max_new: see blocks_needed().
        """
        missing = 0
        for window, blocks in zip(self.windows, hits, strict=True):
            held = [block for block in blocks if block != NULL_BLOCK]
            num_idle = sum(self.pool.num_refs(block) == 0 for block in held)
            needed = blocks_needed(num_tokens, self.block_size, (window,), max_new)
            missing += max(needed - len(held), 0) + num_idle
        return missing <= self.pool.num_available

    def share(self, source: Sequence[Sequence[int]], target: Tables, num_tokens: int) -> None:
        """Let the empty target tables hold the blocks of the first num_tokens positions of source, too."""
        num_blocks = -(-num_tokens // self.block_size)
        for blocks, table in zip(source, target, strict=True):
            for block in blocks[:num_blocks]:
                if block != NULL_BLOCK:
                    self.pool.share(block)
                table.append(block)

    def num_shared(self, tables: Tables, num_tokens: int) -> int:
        """Of the first num_tokens positions those in leading full blocks that other tables hold, too."""
        num_blocks = 0
        for block in tables[0][: num_tokens // self.block_size]:
            if self.pool.num_refs(block) < 2:
                break
            num_blocks += 1
        return num_blocks * self.block_size

    def num_held(self, tables: Tables, num_tokens: int) -> int:
        """Blocks that hold something of the first num_tokens positions."""
        num_blocks = -(-num_tokens // self.block_size)
        return sum(num_blocks - table[:num_blocks].count(NULL_BLOCK) for table in tables)

    def release(self, tables: Tables) -> None:
        """Empty the tables, tail first: a cached prefix is of use without its tail, but not the reverse."""
        self._free_from(tables, 0)

    def trim(self, tables: Tables, num_tokens: int) -> None:
        """Let the blocks go that lie behind the first num_tokens positions. Cost: O(blocks freed)."""
        self._free_from(tables, -(-num_tokens // self.block_size))

    def _free_from(self, tables: Tables, place: int) -> None:
        # all of one length: the last of every group first, so that what is evicted first is of least use in any
        for blocks in reversed(list(zip(*(table[place:] for table in tables), strict=True))):
            self.pool.free(block for block in blocks if block != NULL_BLOCK)
        for table in tables:
            del table[place:]

    @property
    def usage_frac(self) -> float:
        """Fraction of the blocks that are in tables."""
        return self.pool.num_used / (self.pool.num_blocks - 1)

    def check_invariants(self, every: Sequence[Tables]) -> None:
        """Args: every: the tables of all sequences. Raises: InvariantError. Cost: O(all blocks); for tests."""
        self.pool.check_invariants(table for tables in every for table in tables)
        for tables in every:
            if len({len(table) for table in tables}) != 1:
                raise InvariantError(f"tables of one sequence differ in length: {tables}")
            for window, table in zip(self.windows, tables, strict=True):
                num_empty = table.count(NULL_BLOCK)
                if any(table[:num_empty]) or (num_empty and window is None):
                    raise InvariantError(f"a table of window {window} has null blocks where none may be: {table}")
