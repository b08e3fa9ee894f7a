"""StepInputs: one step as flat arrays, the same for every backend.

Made by execution/inputs.py from a StepPlan, read by the kernels and by the reference. Says nothing of prefill or
decode: a sequence has rows in this step, and a cache of context_len positions once they are written.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from albireo.errors import InvariantError
from albireo.graph.op_numbers import TOP_LOGITS

Ints = NDArray[np.int32]

StepArrays = tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints, Ints]

_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The arrays of one step, all int32 and contiguous; borrowed by the backend for the time of the step.

    Fields:
        token_ids: [T] the tokens, sequence after sequence.
        positions: [T] of each token in its sequence.
        slots: [T] where its k and v go: block_id * block_size + offset. Sequences write no block of each other: a
            kernel may clear the place behind the last token that a sequence writes.
        query_start: [B + 1] sequence b has rows query_start[b] to query_start[b + 1] of T.
        context_len: [B] positions of its cache after this step's tokens are written; its last row has position
            context_len - 1.
        block_table: [B, max_blocks] block of each block_size positions; entries beyond context_len are not read. The
            null block where no token of a window looks any more: a kernel may begin there, but nothing counts.
        logit_rows: [R] rows of T whose full logits are wanted, in this order.
        top_rows: [G] rows of T of which the best few logits are enough.
        top_counts: [G] how many of the best: 1 is the arg max, TOP_LOGITS the most. Left out: the arg max of each.
        adapter_slots: [T] slot of the token's adapter, -1 where it has none; left out: none has, and only a program
            without adapters may run.
        group_slots, group_tables: [groups, T] and [groups, B, max_blocks] slots and block tables of each block group,
            where the engine keeps them apart; slots and block_table are those of the first. Left out: the blocks of all
            groups lie side by side, see of_groups().
        state_slots: [B] where what each sequence keeps from step to step is, no two alike; a sequence whose first
            token is at position 0 begins anew. Left out: only a program that keeps nothing may run.
        snapshot_slots, snapshot_rows: [B] where else what a sequence keeps behind its first so many rows of the step
            goes, to slots that nobody has; 0 rows: nowhere, and the slot means nothing. Left out: no snapshot is taken.
        token_types: [T] 0 where a token is of the first text of a sequence, 1 of the second. Left out: all are 0.
        given: arrays [any, width] float32 of rows that come with the step, as ops that read them number them; of a
            GPU's step tensors that are there already will do.
        given_rows: [T] which row of the first of them is a token's embedding, -1: it has its own. Left out: all have.
        row_ends: [T] behind the last position that a row sees, where that is not its own; 0: it is. Rows up to there
            have that end, too. Left out: of all it is.
        rope_positions: [T] by which rows are rotated, and rope_rows: [T, D] float32 cosines, then sines, that stand for
            these. Left out: positions.
        read_slots: [T] where hidden states lie that a head reads, and leave_slots: [S], rows as in out_rows, where
            those go that it leaves; slot 0: nowhere. For a device that keeps them itself; else they are given.
    """

    token_ids: Ints
    positions: Ints
    slots: Ints
    query_start: Ints
    context_len: Ints
    block_table: Ints
    logit_rows: Ints
    top_rows: Ints
    top_counts: Ints = field(default_factory=lambda: _NONE)
    adapter_slots: Ints | None = None
    state_slots: Ints | None = None
    snapshot_slots: Ints | None = None
    snapshot_rows: Ints | None = None
    group_slots: Ints | None = None
    group_tables: Ints | None = None
    token_types: Ints | None = None
    given: tuple[Any, ...] = ()
    given_rows: Ints | None = None
    rope_positions: Ints | None = None
    rope_rows: NDArray[np.float32] | None = None
    row_ends: Ints | None = None
    read_slots: Ints | None = None
    leave_slots: Ints | None = None

    def __post_init__(self) -> None:
        if self.top_counts is _NONE:
            object.__setattr__(self, "top_counts", np.ones(len(self.top_rows), np.int32))

    @property
    def arrays(self) -> StepArrays:
        """All that every program reads, in the order above."""
        return (
            self.token_ids,
            self.positions,
            self.slots,
            self.query_start,
            self.context_len,
            self.block_table,
            self.logit_rows,
            self.top_rows,
            self.top_counts,
        )

    @property
    def num_tokens(self) -> int:
        return len(self.token_ids)

    @property
    def num_sequences(self) -> int:
        return len(self.context_len)

    @property
    def sizes(self) -> dict[str, int]:
        """What the step symbols of a graph stand for."""
        num_logits, num_top = len(self.logit_rows), len(self.top_rows)
        return {"T": self.num_tokens, "R": num_logits, "G": num_top, "S": num_logits + num_top}

    @property
    def out_rows(self) -> Ints:
        """[S] rows of T that leave the model."""
        return np.concatenate([self.logit_rows, self.top_rows])

    @property
    def out_adapter_slots(self) -> Ints:
        """[S] adapter_slots of out_rows. Raises: InvariantError where no row has an adapter."""
        if self.adapter_slots is None:
            raise InvariantError("the step has no adapters")
        return self.adapter_slots[self.out_rows]

    @property
    def logit_pos(self) -> Ints:
        """[R] where logit_rows are in out_rows."""
        return np.arange(len(self.logit_rows), dtype=np.int32)

    @property
    def top_pos(self) -> Ints:
        """[G] where top_rows are in out_rows."""
        return np.arange(len(self.logit_rows), len(self.logit_rows) + len(self.top_rows), dtype=np.int32)

    def of_groups(self, units: tuple[int, ...], block_size: int) -> tuple[Ints, Ints]:
        """slots [groups, T] and block tables [groups, B, max_blocks], blocks as kernels count them.

        A step that has one table, as whoever makes steps by hand gives it, means by block b the blocks b * groups and
        those behind it, one for each group.
        Args: units: of the program's layout, one a group; see KVLayout.units.
        Raises: InvariantError when the step has those of another number of groups.
        """
        slots, tables = self.group_slots, self.group_tables
        if slots is None or tables is None:
            slots, tables = self.slots[None], self.block_table[None]
            if len(units) > 1:
                each = np.arange(len(units), dtype=np.int32)[:, None]
                slots = (slots // block_size * len(units) + each) * block_size + slots % block_size
                tables = tables * np.int32(len(units)) + each[:, :, None]
        if len(slots) != len(units) or len(tables) != len(units):
            raise InvariantError(f"a step of {len(tables)} block groups, the program has {len(units)}")
        if units == (1,):
            return slots, tables
        scale = np.array(units, np.int32)[:, None]
        return slots // block_size * (scale * block_size) + slots % block_size, tables * scale[:, :, None]

    def check(self, block_size: int) -> None:
        """Raises: InvariantError naming the array that contradicts another. Cost: O(T); for tests and the reference."""
        num_tokens, num_sequences = self.num_tokens, self.num_sequences
        shapes = {
            "positions": (num_tokens,),
            "slots": (num_tokens,),
            "query_start": (num_sequences + 1,),
            "block_table": (num_sequences, self.block_table.shape[-1]),
        }
        if self.token_types is not None:
            shapes["token_types"] = (num_tokens,)
        if self.given_rows is not None:
            shapes["given_rows"] = (num_tokens,)
        if self.rope_positions is not None:
            shapes["rope_positions"] = (num_tokens,)
        if self.row_ends is not None:
            shapes["row_ends"] = (num_tokens,)
        if self.rope_rows is not None:
            shapes["rope_rows"] = (num_tokens, self.rope_rows.shape[-1])
        if self.adapter_slots is not None:
            shapes["adapter_slots"] = (num_tokens,)
        if self.state_slots is not None:
            shapes["state_slots"] = (num_sequences,)
            if len(set(self.state_slots.tolist())) != num_sequences:
                raise InvariantError(f"step state_slots {self.state_slots.tolist()}: two sequences have one")
        if self.snapshot_slots is not None:
            shapes |= {"snapshot_slots": (num_sequences,), "snapshot_rows": (num_sequences,)}
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InvariantError(f"step {name} has shape {getattr(self, name).shape}, not {shape}")
        starts = self.query_start.tolist()
        if starts[0] != 0 or starts[-1] != num_tokens or starts != sorted(starts):
            raise InvariantError(f"step query_start {starts} does not cut {num_tokens} tokens")
        for name in ("logit_rows", "top_rows"):
            rows = getattr(self, name)
            if rows.size and not (rows.min() >= 0 and rows.max() < num_tokens):
                raise InvariantError(f"step {name} {rows.tolist()} leave the {num_tokens} rows there are")
        counts = self.top_counts
        if len(counts) != len(self.top_rows) or (counts.size and not 1 <= counts.min() <= counts.max() <= TOP_LOGITS):
            raise InvariantError(f"step top_counts {counts.tolist()} are not {len(self.top_rows)} of 1 to {TOP_LOGITS}")
        self._check_snapshots(starts)
        for b in range(num_sequences):
            rows = slice(starts[b], starts[b + 1])
            end = int(self.context_len[b])
            positions = np.arange(end - (rows.stop - rows.start), end)
            if not np.array_equal(self.positions[rows], positions) or (len(positions) and positions[0] < 0):
                raise InvariantError(f"step positions of sequence {b} do not end its context of {end}")
            if -(-end // block_size) > self.block_table.shape[1]:
                raise InvariantError(f"step block_table of sequence {b} is too short for a context of {end}")
            slots = self.block_table[b, positions // block_size] * block_size + positions % block_size
            if not np.array_equal(self.slots[rows], slots):
                raise InvariantError(f"step slots of sequence {b} are not those of its block table")

    def _check_snapshots(self, starts: list[int]) -> None:
        if self.snapshot_slots is None or self.snapshot_rows is None or self.state_slots is None:
            return
        taken = self.state_slots.tolist()
        for b, (slot, rows) in enumerate(zip(self.snapshot_slots.tolist(), self.snapshot_rows.tolist(), strict=True)):
            if not 0 <= rows <= starts[b + 1] - starts[b]:
                raise InvariantError(f"step snapshot_rows of sequence {b}, {rows}, are more than it has")
            if rows and slot in taken:
                raise InvariantError(f"step snapshot_slots of sequence {b}: somebody has slot {slot}")
            taken += [slot] * (rows > 0)
