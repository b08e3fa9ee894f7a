"""Blocks of host memory that keep what preempted sequences had computed, and the copies that take it there and back.

Called by scheduler.py, where there is such memory: a device with memory of its own, and swap_space. Does not know who
is preempted, or why it is not computed again instead (preemption.py).

A sequence has its host blocks from swap_out() on until the step that brings them back was executed. What is moved in a
step is moved before anything is computed: out, then copies within the device, then in, so a block that one sequence
leaves may be another's in the same step.
"""

from __future__ import annotations

from collections.abc import Iterable

from albireo.engine.block_tables import BlockTables
from albireo.engine.request import HostBlock, Sequence, Status
from albireo.errors import InvariantError
from albireo.step import NULL_BLOCK, StepPlan


class HostPool:
    """Invariants, checked by check_invariants():
    1. every host block is free or in the list of one sequence;
    2. between steps only WAITING sequences have some, no two for one place of a table, and those of a group are for
       places in a row, up to the last of num_swapped_tokens positions.
    """

    def __init__(self, num_blocks: int, tables: BlockTables) -> None:
        self.num_blocks = num_blocks
        self._tables, self._block_size = tables, tables.block_size
        #: A stack, the smallest on top at first: blocks with neighbouring numbers travel as one copy.
        self._free = list(range(num_blocks - 1, -1, -1))
        self._holders: set[int] = set()
        self._out: list[Sequence] = []
        self._in: list[Sequence] = []

    @property
    def num_free(self) -> int:
        return len(self._free)

    @property
    def num_sequences(self) -> int:
        """Those that have host blocks."""
        return len(self._holders)

    @property
    def usage_frac(self) -> float:
        """Fraction of the host blocks that are taken; 0 where there are none."""
        return 1.0 - len(self._free) / self.num_blocks if self.num_blocks else 0.0

    def swap_out(self, seq: Sequence, plan: StepPlan) -> None:
        """Plan to keep what a running sequence has computed, before its blocks are given away.

        Raises: InvariantError when there are too few host blocks.
        """
        num_tokens = seq.num_computed_tokens
        needed, there = self._tables.num_held(seq.block_tables, num_tokens), len(self._free)
        if needed > there or seq.host_blocks:
            raise InvariantError(f"sequence {seq.seq_id} is swapped out to {there} host blocks, needs {needed}")
        seq.num_swapped_tokens = num_tokens
        self._holders.add(seq.seq_id)
        for group, table in enumerate(seq.block_tables):
            for place, block in enumerate(table[: -(-num_tokens // self._block_size)]):
                if block != NULL_BLOCK:
                    kept = HostBlock(group, place, self._free.pop())
                    seq.host_blocks.append(kept)
                    plan.swap_outs.append((block, kept.block))
        self._out.append(seq)

    def swap_in(self, seq: Sequence, num_found: int, plan: StepPlan) -> None:
        """Plan to bring back what a sequence had, if it had something, into its tables, which are there already.

        Args: num_found: of its first positions that the device still holds, whole blocks: these are not brought.
        """
        if not seq.host_blocks:
            return
        first = num_found // self._block_size
        for group, place, block in seq.host_blocks:
            target = seq.block_tables[group][place] if place >= first else NULL_BLOCK
            if target != NULL_BLOCK:
                plan.swap_ins.append((block, target))
        self._in.append(seq)

    def forget(self, seq: Sequence) -> None:
        """Let a sequence's host blocks go, if it has some."""
        if seq.host_blocks:
            self._free += [kept.block for kept in reversed(seq.host_blocks)]
            self._holders.discard(seq.seq_id)
            seq.host_blocks, seq.num_swapped_tokens = [], 0

    def commit(self) -> None:
        """The step was executed: who came back needs its host blocks no more."""
        for seq in self._in:
            self.forget(seq)
        self._in.clear()
        self._out.clear()

    def roll_back(self) -> None:
        """The step failed: what it was to swap out is lost, and computed again; what it was to bring back is kept."""
        for seq in self._out:
            self.forget(seq)
        self._in.clear()
        self._out.clear()

    def check_invariants(self, sequences: Iterable[Sequence]) -> None:
        """Args: sequences: all unfinished ones. Raises: InvariantError. Cost: O(blocks); for tests, between steps."""
        holders = [seq for seq in sequences if seq.host_blocks]
        blocks = [kept.block for seq in holders for kept in seq.host_blocks]
        if sorted(blocks + self._free) != list(range(self.num_blocks)):
            raise InvariantError(f"host blocks {blocks} and {self._free} free ones do not partition {self.num_blocks}")
        if {seq.seq_id for seq in holders} != self._holders:
            raise InvariantError(f"sequences {self._holders} are to have host blocks, not {holders}")
        for seq in holders:
            end = -(-seq.num_swapped_tokens // self._block_size)
            wanted = [
                (group, place)
                for group in range(len(self._tables.windows))
                for place in range(self._tables.first_seen(group, seq.num_swapped_tokens), end)
            ]
            if seq.status is not Status.WAITING or [kept[:2] for kept in seq.host_blocks] != wanted:
                raise InvariantError(
                    f"sequence {seq.seq_id} is {seq.status.name} and has host blocks {seq.host_blocks} for "
                    f"{seq.num_swapped_tokens} tokens"
                )
