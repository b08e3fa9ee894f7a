"""Prefixes that outlive the pool and the process: blocks of sequences in files, and back from there.

Called by scheduler.py, where somebody keeps such files. A file goes by the key of its block (prefix_cache.py), so that
what is found stands for the whole sequence up to its end. Does not know files, devices, or how a block is laid out.

Blocks are kept when a sequence ends, until when its own table has them; and those that a window has left, when they are
let go. Where layers keep states, blocks are of use up to where there is one of these. What is read is written to blocks
and slots by the step that goes on behind it, before anything is computed; so a step that fails loses nothing, and
others of the same step find these blocks as any others.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from albireo.engine.block_tables import BlockTables
from albireo.engine.prefix_cache import Hit, PrefixCache
from albireo.engine.request import Sequence
from albireo.engine.state_slots import StateSlots
from albireo.step import NULL_BLOCK, StepPlan

#: So many blocks or more are worth reading, or keeping.
LEAST_BLOCKS = 4


class BlockFiles(Protocol):
    """Contents of KV blocks by their keys, somewhere that is not the KV cache."""

    def has(self, key: bytes) -> bool:
        """Whether there seems to be one."""
        ...

    def read(self, keys: Seq[bytes]) -> list[bytes]:
        """Contents of the leading ones that are there and whole, as many as it likes."""
        ...

    def keep(self, blocks: Seq[tuple[bytes, int]]) -> None:
        """Take the contents of blocks (key, block) as they are now, those that are not there yet; never fails."""
        ...

    def has_state(self, key: bytes) -> bool:
        """Whether there seems to be what layers carry on, behind the block of this key."""
        ...

    def read_state(self, key: bytes) -> bytes | None:
        """The content of a slot; None where there is none that is whole."""
        ...

    def keep_state(self, key: bytes, slot: int) -> None:
        """As keep(), the content of a slot."""
        ...

    def remove(self) -> None:
        """Forget all of this model, what waits to be written, too; never fails."""
        ...

    def close(self) -> None:
        """Wait until all is written that was taken; nothing more is."""
        ...


class KeptBlock(NamedTuple):
    """For a place of a sequence's table in a group: what belongs there."""

    group: int
    place: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Kept:
    """What goes on behind a hit.

    Fields:
        num_tokens: positions that are covered, the hit's included.
        blocks: those behind the hit that this takes: of a group with a window those that the next token looks into.
        state: behind num_tokens, where layers keep states and these are not the hit's.
    """

    num_tokens: int
    blocks: list[KeptBlock] = field(default_factory=list)
    state: bytes | None = None


class KeptPrefixes:
    """Invariant: nobody is given what another model, another adapter or other images were. Numbers of
    adapters mean nothing to another process, so what is computed with one is left alone.
    """

    def __init__(self, files: BlockFiles, cache: PrefixCache, tables: BlockTables, states: StateSlots) -> None:
        self._files, self._cache, self._tables, self._states = files, cache, tables, states
        self._block_size = tables.block_size
        self._windowed = [group for group, window in enumerate(tables.windows) if window is not None]
        self._whole = [group for group, window in enumerate(tables.windows) if window is None]

    # -- back from files -----------------------------------------------------------------------------------------------

    def read(self, seq: Sequence, hit: Hit) -> Kept:
        """What goes on behind a hit; of few blocks it is not worth it. Cost: all that is read is checked, too."""
        nothing = Kept(hit.num_tokens)
        # one token at least is left to compute, and what was swapped out is nearer
        first, end = hit.num_tokens // self._block_size, (seq.num_tokens - 1) // self._block_size
        may_read = seq.request.can_read_cache and _is_known(seq) and not seq.num_swapped_tokens
        if not may_read or end - first < LEAST_BLOCKS:
            return nothing
        found: list[KeptBlock] = []
        for group in self._whole:
            found = self._read(seq, group, range(first, end))
            end = first + len(found)
        end = self._end_at_state(seq, first, self._end_within_windows(seq, first, end))
        if end - first < LEAST_BLOCKS:
            return nothing
        found = found[: end - first]
        for group in self._windowed:
            places = self._seen(group, first, end)
            blocks = self._read(seq, group, places)
            if len(blocks) < len(places):
                return nothing  # damaged, or gone meanwhile
            found += blocks
        state = self._files.read_state(self._cache.key(seq, end - 1)) if self._states.is_used else None
        if self._states.is_used and state is None:
            return nothing
        return Kept(end * self._block_size, found, state)

    def _read(self, seq: Sequence, group: int, places: range) -> list[KeptBlock]:
        contents = self._files.read([self._cache.key(seq, place, group) for place in places])
        return [KeptBlock(group, place, content) for place, content in zip(places, contents, strict=False)]

    def _seen(self, group: int, first: int, end: int) -> range:
        """Places from first on that a token behind the end looks into."""
        return range(max(first, self._tables.first_seen(group, end * self._block_size)), end)

    def _end_within_windows(self, seq: Sequence, first: int, end: int) -> int:
        """The most places, end or fewer, behind which every window finds all that it looks into."""
        num_checked = 0
        while end > first and num_checked < len(self._windowed):
            group = self._windowed[num_checked]
            seen = self._seen(group, first, end)
            missing = next((p for p in reversed(seen) if not self._files.has(self._cache.key(seq, p, group))), None)
            end, num_checked = (end, num_checked + 1) if missing is None else (missing, 0)
        return max(first, end)

    def _end_at_state(self, seq: Sequence, first: int, end: int) -> int:
        """The most places, end or fewer, behind which there is a state, and windows find all they look into."""
        while self._states.is_used and end > first and not self._files.has_state(self._cache.key(seq, end - 1)):
            end = self._end_within_windows(seq, first, end - 1)
        return end

    def fill(self, seq: Sequence, kept: Kept, plan: StepPlan) -> None:
        """Plan to write what was read to a sequence's blocks and slot, which are there already."""
        for group, place, content in kept.blocks:
            plan.fills.append((seq.block_tables[group][place], content))
        if kept.state is not None:
            plan.state_fills.append((seq.work.state_slot, kept.state))

    def remove(self) -> None:
        """Forget all that was kept of this model."""
        self._files.remove()

    # -- into files ----------------------------------------------------------------------------------------------------

    def keep(self, seq: Sequence) -> None:
        """A sequence that runs is over, and still has its blocks: what is full of them is kept."""
        num_blocks = seq.num_computed_tokens // self._block_size
        if num_blocks >= LEAST_BLOCKS:
            for group in range(len(seq.block_tables)):
                self._keep(seq, group, range(num_blocks))
            if self._states.is_used and _is_known(seq):
                for key in (self._cache.key(seq, place) for place in range(num_blocks)):
                    if (slot := self._states.find(key)) is not None:
                        self._files.keep_state(key, slot)

    def leave(self, seq: Sequence) -> None:
        """A sequence that runs is about to let go of what all its windows have left."""
        for group in self._windowed:
            first = self._tables.first_seen(group, seq.num_computed_tokens)
            table, start = seq.block_tables[group], first
            while start > 0 and table[start - 1] != NULL_BLOCK:
                start -= 1
            if start < first:
                self._keep(seq, group, range(start, first))

    def _keep(self, seq: Sequence, group: int, places: range) -> None:
        if _is_known(seq):
            table = seq.block_tables[group]
            held = [place for place in places if table[place] != NULL_BLOCK]
            self._files.keep([(self._cache.key(seq, place, group), table[place]) for place in held])


def _is_known(seq: Sequence) -> bool:
    """Whether its keys mean the same to every process."""
    return seq.request.adapter is None
